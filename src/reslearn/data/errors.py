"""What can be wrong with data, said in one line: the value, what is allowed, where the right thing can be had."""


class DataError(ValueError):
    """Data are missing, truncated, foreign, or asked for in a way they do not allow."""


class UnknownData(DataError):
    """The name is neither a registered source nor a folder."""
