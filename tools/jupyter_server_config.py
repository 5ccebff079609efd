"""JupyterLab for learners: none of nbgrader's menus and buttons, and no question about Jupyter's news.

The environment gets this file as etc/jupyter/jupyter_server_config.py (see pyproject.toml); the user's own settings are
not touched, and go before it. In a folder with an nbgrader_config.py, as `coursework assign` makes, nbgrader is there.
"""

from pathlib import Path

ON_THE_SERVER = ("assignment_list", "course_list", "formgrader", "validate_assignment")
ON_THE_PAGE = "@jupyter/nbgrader"
NEWS = "@jupyterlab/apputils-extension:announcements"

FOR_INSTRUCTORS = Path("nbgrader_config.py").exists()


def hide(handler: object, page: dict) -> dict:
    """The settings of JupyterLab's page, with what learners do not need switched off."""
    return {**page, "disabledExtensions": [*page["disabledExtensions"], NEWS, *[ON_THE_PAGE] * (not FOR_INSTRUCTORS)]}


c = get_config()  # noqa: F821 (Jupyter defines it)
c.ServerApp.tornado_settings = {"page_config_hook": hide}
if not FOR_INSTRUCTORS:
    c.ServerApp.jpserver_extensions = {f"nbgrader.server_extensions.{name}": False for name in ON_THE_SERVER}
