from orchestrator.contract import errors


def test_each_kind_of_error_ends_a_command_with_its_exit_code():
    kinds = [errors.PigeonholeError, *errors.PigeonholeError.__subclasses__()]

    codes = {kind.__name__: int(kind.exit_code) for kind in kinds if kind.__module__ == errors.__name__}

    assert codes == {
        "PigeonholeError": 1,
        "UsageError": 2,
        "NotFoundError": 4,
        "UnavailableError": 69,
        "PushRefusedError": 1,
        "MessageError": 1,
        "IntegrityError": 1,
    }


def test_exit_codes_are_those_of_the_design():
    assert {code.name: int(code) for code in errors.ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "TOO_MANY_FAILURES": 3,
        "NOT_FOUND": 4,
        "UNAVAILABLE": 69,
        "TIMED_OUT": 124,
        "INTERRUPTED": 130,
    }
