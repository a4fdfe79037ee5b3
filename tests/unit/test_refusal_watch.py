"""When refusals are the provider's fault, and which rejections stand."""

from __future__ import annotations

from lifecycle_emails.delivery.refusal_watch import LAST_MAILS, REFUSALS_IN_A_ROW, RefusalWatch


def test_watch_trips_at_twenty_refusals_in_a_row_and_not_before() -> None:
    watch: RefusalWatch[str] = RefusalWatch()
    for _ in range(REFUSALS_IN_A_ROW - 1):
        watch.refused()
    assert watch.tripped is None
    watch.refused()
    assert watch.tripped == "20 mails in a row were refused"


def test_watch_trips_when_more_than_thirty_of_the_last_hundred_were_refused() -> None:
    watch: RefusalWatch[str] = RefusalWatch()
    for number in range(LAST_MAILS - 1):
        watch.refused() if number % 10 < 3 else watch.accepted()
    assert watch.tripped is None  # fewer than a hundred mails tell nothing
    watch.accepted()
    for _ in range(3):
        watch.refused()
        assert watch.tripped is None  # 30 of 100: the oldest three, refused as well, fall out
    watch.refused()
    assert watch.tripped == "31 of the last 100 mails were refused"


def test_rejection_is_released_by_an_accepted_mail_and_at_the_end_only_where_it_is_named() -> None:
    watch: RefusalWatch[str] = RefusalWatch()
    watch.refused("ada")
    assert watch.accepted() == ["ada"]
    watch.refused("ben", named=True)
    watch.refused("cid")
    assert watch.drain() == (["ben"], ["cid"])
    assert watch.drain() == ([], [])
