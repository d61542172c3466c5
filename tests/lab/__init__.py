"""The lab: machines, networks and telephones made of network namespaces, for the end-to-end tests and the demo.

addresses   the address plan: who lives where
network     a lab and its machines: namespaces, cables, routers with NAT
processes   what the lab has started, and that nothing of it is left
eventually  waiting for what must become true
wire        what went over every cable: SIP messages, streams of RTP, leaks
packets     one captured packet taken apart; a TCP stream put together
sip         a SIP message read from the wire
rtp         streams of RTP counted
calls       what a call's audio must be: who hears whom, from when on
sipp        SIPp as phone, carrier or PBX, from a folder of sipp-scenarios
agent       a SIP user agent that says what a test writes: forged, odd, rare
probe       single requests and answers, asked often or timed
audio       a sound that can be heard in a packet count: generated, never silence
node        a Sipward node on one of the machines
redis       a Redis elsewhere, and a hand that writes into one
dns         a DNS server with carriers' names, that can hang
asterisk    a real PBX as an instance
baresip     a real phone
ladder      a call drawn as arrows between lifelines
demo        the show: a call from a phone behind a NAT to a tenant's PBX
"""
