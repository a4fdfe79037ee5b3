"""An explicit-state model of the sending protocol: every order of events, with a crash after any step.

`checker` searches, `state` is what is searched, `protocol` the decisions that a mutant changes, `steps`,
`lane_steps` and `ledger_steps` what can happen, `properties` what must hold, `verdicts` what is expected.
Follows docs/ledger.md; must not import the package that it is a model of.
"""
