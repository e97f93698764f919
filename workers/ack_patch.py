"""Makes a failed acknowledgement end the connection; without this the worker hangs.

kombu's `ack_log_error` and `reject_log_error` log a connection error and continue. On Redis the prefetch slot of
that message is then never freed and BRPOP is never sent again: the worker stays alive but takes no more messages after
the server was killed or frozen (celery#8990, celery#10205). Raising the error makes the consumer reconnect.
tests/integration/test_server_faults.py fails without this.
"""

import logging
from typing import Any

from kombu.message import Message

logger = logging.getLogger(__name__)


def install() -> None:
    """Make failed acknowledgements raise; doing it twice changes nothing."""
    setattr(Message, "ack_log_error", _ack_or_raise)  # noqa: B010 a plain assignment offends the type checker
    setattr(Message, "reject_log_error", _reject_or_raise)  # noqa: B010


def _ack_or_raise(self: Message, _logger: Any, errors: Any, multiple: bool = False) -> None:
    try:
        self.ack(multiple=multiple)
    except errors as err:
        logger.warning("cannot acknowledge a doorbell, reconnecting: %r", err)
        raise


def _reject_or_raise(self: Message, _logger: Any, errors: Any, requeue: bool = False) -> None:
    try:
        self.reject(requeue=requeue)
    except errors as err:
        logger.warning("cannot reject a doorbell, reconnecting: %r", err)
        raise
