"""What other libraries tell while they are used."""

import logging

from fcos.system.stderr import quieter


def test_loggers_are_afterwards_as_the_caller_had_them(caplog):
    one, other = logging.getLogger("fcos_test.one"), logging.getLogger("fcos_test.other")
    one.setLevel(logging.DEBUG)
    with quieter(logging.ERROR, one.name, other.name):
        one.warning("unheard")
        other.warning("unheard")
        one.error("heard")
    one.debug("heard")
    assert [record.message for record in caplog.records] == ["heard", "heard"]
    assert (one.level, other.level) == (logging.DEBUG, logging.NOTSET)
