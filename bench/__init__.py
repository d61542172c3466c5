"""What a message costs: Sipward against a native yardstick, in the lab's namespaces, in turns.

rig       the machines, both proxies, the load
figures   what is measured, and how a figure is made of runs
edits     how soon an edit in Redis is live
main      the command `sipward bench`
"""
