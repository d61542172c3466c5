"""An agent that registers at a real PBX, which asks for a password (RFC 2617)."""

import hashlib
import re

from lab.agent import Agent
from lab.asterisk import PASSWORD


def sign_on(phone: Agent, user: str, domain: str, call_id: str = "") -> str:
    """Register; the Call-ID, under which a phone registers wherever it is (RFC 3261, 10.2.4)."""
    uri = f"sip:{domain}"
    talk = phone.begin("REGISTER", uri, user=user, domain=domain, call_id=call_id)
    talk.remote = f"<sip:{user}@{domain}>"
    challenge = dict(re.findall(r'(\w+)="?([^",]+)', phone.expect(401).header("WWW-Authenticate")))
    realm, nonce, count, own = challenge["realm"], challenge["nonce"], "00000001", "abc"
    secret, asked = _md5(f"{user}:{realm}:{PASSWORD}"), _md5(f"REGISTER:{uri}")
    response = _md5(f"{secret}:{nonce}:{count}:{own}:auth:{asked}")
    talk.send("REGISTER", headers=[
        f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", algorithm=MD5, '
        f'opaque="{challenge.get("opaque", "")}", qop=auth, nc={count}, cnonce="{own}", response="{response}"',
        "Expires: 600",
    ])  # fmt: skip
    phone.expect(200)
    return talk.call_id


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
