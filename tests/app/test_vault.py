"""Files in memory go when they are taken, when they are old, and when there is no room."""

from __future__ import annotations

from lesion_hub.app.vault import Vault


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def vault(clock: Clock, capacity: int = 100) -> Vault:
    return Vault("/root/vault", capacity=capacity, keep_seconds=10, clock=clock)


def test_a_file_is_taken_once():
    kept = vault(Clock())
    path = kept.put("../a<b>.jpg", b"12345")
    assert path.startswith("/root/vault/")
    assert path.endswith("/a_b_.jpg")
    assert kept.take(path).content == b"12345"
    assert kept.take(path) is None
    assert len(kept) == 0


def test_the_same_picture_twice_is_two_files():
    kept = vault(Clock())
    first, second = kept.put("a.jpg", b"1"), kept.put("a.jpg", b"1")
    assert kept.take(first).content == kept.take(second).content == b"1"


def test_an_old_file_goes():
    clock = Clock()
    kept = vault(clock)
    path = kept.put("a.jpg", b"1")
    clock.now = 10.0
    assert kept.take(path) is None


def test_the_oldest_make_room():
    kept = vault(Clock(), capacity=10)
    paths = [kept.put("a.jpg", b"12345") for _ in range(3)]
    assert [kept.take(path) is not None for path in paths] == [False, True, True]


def test_other_paths_give_nothing():
    kept = vault(Clock())
    path = kept.put("a.jpg", b"1")
    token = path.split("/")[3]
    for other in ("/etc/passwd", f"/other/{token}/a.jpg", f"/root/vault/x/../{token}/a.jpg/..", "", f"{token}/a.jpg"):
        assert kept.take(other) is None
    assert kept.take(path)
