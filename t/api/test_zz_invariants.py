"""
Runs last: what the client noticed on every answer of the whole run
(request ids, problem shapes, security headers, doubled headers, 500s).
"""

import hmhttp


def test_zz_rules_for_all_answers(stack):
    assert not hmhttp.SEEN, "\n".join(
        "%s\n    %s" % x for x in sorted(hmhttp.SEEN.items()))


def test_zz_nobody_saw_a_500(stack):
    assert not hmhttp.SEEN_500, "\n".join(hmhttp.SEEN_500[:20])
