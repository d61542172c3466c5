"""An agent at a real PBX, which asks for a password (RFC 2617): it registers, and calls."""

import hashlib
import re

from lab.agent import Agent, Talk
from lab.asterisk import PASSWORD
from lab.sip import Message


def sign_on(phone: Agent, user: str, domain: str, call_id: str = "", *, scheme: str = "sip", contact: str = "") -> str:
    """Register; the Call-ID, under which a phone registers wherever it is (RFC 3261, 10.2.4)."""
    uri = f"{scheme}:{domain}"
    talk = phone.begin("REGISTER", uri, user=user, domain=domain, call_id=call_id, contact=contact)
    talk.remote = f"<{scheme}:{user}@{domain}>"
    talk.send("REGISTER", headers=[_authorization(phone.expect(401), user, "REGISTER", uri), "Expires: 600"])
    phone.expect(200)
    return talk.call_id


def dial(phone: Agent, user: str, number: str, domain: str, body: str) -> Talk:
    """Call a number and wait until it is answered."""
    uri = f"sip:{number}@{domain}"
    talk = phone.begin("INVITE", uri, user=user, domain=domain, body=body)
    refusal = phone.expect(401)
    phone.acknowledge(refusal)
    talk.send("INVITE", headers=[_authorization(refusal, user, "INVITE", uri)], body=body)
    talk.learn(phone.expect_again(200)).ack()
    return talk


def _authorization(refusal: Message, user: str, method: str, uri: str) -> str:
    challenge = dict(re.findall(r'(\w+)="?([^",]+)', refusal.header("WWW-Authenticate")))
    realm, nonce, count, own = challenge["realm"], challenge["nonce"], "00000001", "abc"
    secret, asked = _md5(f"{user}:{realm}:{PASSWORD}"), _md5(f"{method}:{uri}")
    response = _md5(f"{secret}:{nonce}:{count}:{own}:auth:{asked}")
    return (
        f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", algorithm=MD5, '
        f'opaque="{challenge.get("opaque", "")}", qop=auth, nc={count}, cnonce="{own}", response="{response}"'
    )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
