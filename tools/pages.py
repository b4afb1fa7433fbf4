"""Pages of the documentation that are partly made by a program."""


class PageBrokenError(ValueError):
    """The page has lost the marks between which something is made."""


def between(page: str, begin: str, end: str, made: str) -> str:
    """The page with these lines between its marks.

    Raises:
        PageBrokenError: a mark is missing.
    """
    head, began, rest = page.partition(begin)
    _, ended, tail = rest.partition(end)
    if not (began and ended):
        raise PageBrokenError(f"the page lacks a mark: {begin} … {end}")
    return f"{head}{begin}\n{made}\n{end}{tail}"
