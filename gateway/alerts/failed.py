"""What does a delivery that failed say of itself?"""


class DeliveryFailed(Exception):
    """Nobody is known to have received it; it is tried again.

    `reason` is fixed words and at most a status: it goes into the log and the outbox, so it never
    holds an address, a URL, or what the other side wrote.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
