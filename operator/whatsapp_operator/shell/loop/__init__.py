"""The loop: observe, plan, note, act, report, rest."""
