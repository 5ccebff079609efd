"""What is missing where the package was installed without one of its extras, in one line."""

INSTRUCTOR = ("dask", "distributed", "jupytext", "nbgrader", "sqlalchemy", "yaml")  # all else comes with the course


def lacking(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The same error, with the command that installs what it misses."""
    message = f"{_package(error)} is not installed, which comes with: {remedy(error)}"
    return ModuleNotFoundError(message, name=error.name)


def remedy(error: ModuleNotFoundError) -> str:
    """The command that installs what an error misses."""
    return f"pip install 'coursework[{'instructor' if _package(error) in INSTRUCTOR else 'course'}]'"


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]
