from router.retry_policy import RetryBudget


def test_the_budget_ends_with_failures_and_comes_back_with_successes() -> None:
    budget = RetryBudget(tokens=4, refill=0.5)
    assert [budget.failed() for _ in range(4)] == [True, False, False, False]
    for _ in range(8):
        budget.succeeded()
    assert budget.failed()


def test_the_budget_never_exceeds_its_tokens() -> None:
    budget = RetryBudget(tokens=4, refill=1.0)
    for _ in range(100):
        budget.succeeded()
    assert [budget.failed() for _ in range(2)] == [True, False]
