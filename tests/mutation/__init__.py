"""Mutation tests of the pure core: does a test fail when the code is wrong? `make mutants`.

Small wrong changes (mutants) are made one at a time, and the unit tests that execute the changed line are run. A mutant
is killed when one of them fails. Those that survive are listed: each is a hole in the tests, or changes nothing that
can be observed. Both count as survivors.
"""
