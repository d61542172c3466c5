"""The one net under every callback: no exception in Python loses a message or says nothing.

Kamailio logs an exception in a callback and forgets the message: the caller would get silence. So a request is answered
500 once, and a reply or failure goes on as it is.
"""

import traceback
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType

from sipward.flow import DONE, Flow, word


class Callbacks:
    """The object that app_python3 calls. Every method returns an integer, and raises nothing."""

    def __init__(self, sip: ModuleType, flow: Flow, sync: Callable[[], None], look: Callable[[], None]) -> None:
        """`sync`: keeps the live table in step with Redis, for ever; `look`: looks after the connections to carriers,
        each second. Each runs in a process of its own.
        """
        self._sip = sip
        self._flow = flow
        self._sync = sync
        self._look = look

    def child_init(self, rank: int) -> int:
        """Called in every process after the fork."""
        return DONE

    def ksr_request_route(self, msg: object) -> int:
        """A request arrived."""
        try:
            self._flow.request()
        except UnicodeDecodeError:
            # A header that routing reads is not UTF-8, which RFC 3261, 25.1 asks for.
            self._pass(lambda: self._sip.count("not-utf8"))
            self._refuse(400, "Bad Request", "not-utf8")
        except BaseException:
            self._report()
            self._refuse(500, "Server Internal Error", "exception")
        return DONE

    def ksr_reply(self, msg: object) -> int:
        """A reply to a relayed request arrived."""
        try:
            self._flow.reply()
        except BaseException:
            self._report()
            self._strip()
        return DONE

    def ksr_stray_reply(self, msg: object, *names: object) -> int:
        """A reply arrived that belongs to no request."""
        return self._pass(self._flow.stray_reply)

    def ksr_failure(self, msg: object) -> int:
        """A relayed request failed."""
        return self._pass(self._flow.failure)

    def ksr_expired(self, msg: object, event: str) -> int:
        """An entry of shared memory has outlived its time."""
        return self._pass(self._flow.forgotten) if event == "htable:expired:charges" else DONE

    def ksr_sync(self, msg: object, *names: object) -> int:
        """The timer process: stays in here."""
        return self._pass(self._sync)

    def ksr_peers(self, msg: object, *names: object) -> int:
        """Another second is over, in another timer process."""
        return self._pass(self._look)

    def _pass(self, callback: Callable[[], None]) -> int:
        try:
            callback()
        except BaseException:
            self._report()
        return DONE

    def _refuse(self, code: int, reason: str, why: str) -> None:
        """Answer a request, unless it is an ACK, and say so; what cannot be read of it is a question mark."""
        try:
            method = word(self._sip.method)
            if method == "ACK":
                return
            self._sip.answer(code, reason)
            who = f"method={method} src_ip={word(lambda: self._sip.source().host)} tenant=-"
            call_id = word(self._sip.call_id)
            self._sip.log(f"event=refused why={why} {who} code={code} callid={call_id}")
        except BaseException:
            self._report()

    def _strip(self) -> None:
        """Take off a reply what may show the inside, when it could not be changed as it should."""
        try:
            self._sip.keep_needed_headers()
            self._sip.set_contacts([])
            self._sip.set_record_routes([])
            self._sip.remove_body()
        except BaseException:
            self._report()

    def _report(self) -> None:
        text = traceback.format_exc()
        with suppress(BaseException):
            self._sip.count("exception")
        call_id = word(self._sip.call_id)
        with suppress(BaseException):
            for line in text.rstrip().splitlines():
                self._sip.log_error(f"event=exception callid={call_id} {line}")
