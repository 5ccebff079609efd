"""Right answers by a different algorithm than the reference's, by exercise."""

from tests.other_routes.lesson_01 import ROUTES as LESSON_01

OTHER_ROUTES = {**LESSON_01}
