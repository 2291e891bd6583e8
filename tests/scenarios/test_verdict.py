"""The verdict on what writers saw, over answers that no formation gives."""
from formation import expect, two_writers


class Beside:
    """A writer, beside a node or following the primary."""

    def __init__(self, name, follows=False):
        self.name = self.log = name
        self.node = None if follows else self


def scenario_two_writers_would_show():
    one, other, follower = Beside("one"), Beside("other"), Beside("follower", follows=True)
    before = [(1, 1, one), (2, 1, follower), (3, 2, other)]
    for what, more, shows in (("a hand-over", [(4, 2, follower), (5, 3, one)], None),
                              ("one late answer to each client", [(4, 1, one), (5, 1, follower), (6, 2, other)], None),
                              ("two late answers to one", [(4, 1, one), (5, 2, other), (6, 1, one)], "timeline 1 again"),
                              ("an old primary that its clients still reach", [(4, 1, follower), (5, 1, follower)], "timeline 1 again"),
                              ("two nodes of one timeline", [(4, 2, one)], "one and other on timeline 2")):
        verdict = two_writers((before + more)[::-1])
        expect((verdict is None) if shows is None else (verdict is not None and all(word in verdict for word in shows.split())), f"{what}: {verdict}")
