import threading
from concurrent.futures import ThreadPoolExecutor

from modeling.images.budget import SMALL_BYTES, ByteBudget

MIB = 1 << 20


def test_images_hold_no_more_than_there_is_and_all_get_their_turn():
    budget, lock = ByteBudget(20 * MIB), threading.Lock()
    held, most = 0, 0

    def decode(num_bytes):
        nonlocal held, most
        with budget.hold(num_bytes):
            with lock:
                held += num_bytes
                most = max(most, held)
            with lock:
                held -= num_bytes
        return num_bytes

    sizes = [5 * MIB, 20 * MIB, 8 * MIB, 7 * MIB] * 50
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(decode, sizes)) == sizes
    assert most <= 20 * MIB


def test_an_image_that_needs_more_than_there_is_is_decoded_alone():
    budget, begun = ByteBudget(20 * MIB), threading.Event()

    def other():
        with budget.hold(5 * MIB):
            begun.set()

    with budget.hold(100 * MIB):
        thread = threading.Thread(target=other)
        thread.start()
        assert not begun.is_set()
    thread.join()

    assert begun.is_set()


def test_small_images_never_wait():
    budget = ByteBudget(20 * MIB)

    with budget.hold(20 * MIB), budget.hold(SMALL_BYTES - 1):
        pass


def test_what_an_image_held_is_given_back_after_an_error():
    budget = ByteBudget(20 * MIB)

    for _ in range(3):
        try:
            with budget.hold(15 * MIB):
                raise ValueError
        except ValueError:
            continue

    with budget.hold(20 * MIB):
        pass
