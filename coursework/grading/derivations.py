"""Written derivations of lessons whose exercises have the old form: of none. This file goes with that form."""

from coursework.exercises.mistakes import Derivation

DERIVATIONS: tuple[Derivation, ...] = ()
