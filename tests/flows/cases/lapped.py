"""Sub-bands by lapped transforms, in either direction."""

from helpers.flow_case import Case

from wavedistill.flows import LappedTransform

CASES = {
    "lapped-block": Case(lambda: LappedTransform(4, overlap=0), (1, 24), events=[(1, 4), (1, 0)]),
    "lapped-no-split": Case(lambda: LappedTransform(1, overlap=0), (1, 24), events=[(1, 4), (1, 0)]),
    "lapped-modulated": Case(lambda: LappedTransform(4), (1, 24), events=[(1, 4), (1, 8), (1, 0)]),
    "lapped-extended": Case(lambda: LappedTransform(4, overlap=2), (1, 24), events=[(1, 4), (1, 8), (1, 12), (1, 0)]),
    "lapped-backwards": Case(lambda: LappedTransform(6, overlap=2).inv, (6, 5), events=[(6, 1), (6, 2)]),
}
