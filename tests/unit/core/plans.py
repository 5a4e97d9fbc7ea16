"""Reads the actions of a plan, for tests."""

from __future__ import annotations

from typing import TypeVar

from whatsapp_operator.core.actions import Plan

A = TypeVar("A")


def of(plan: Plan, kind: type[A]) -> list[A]:
    """The actions of one kind, in order."""
    return [action for action in plan.actions if isinstance(action, kind)]


def only(plan: Plan, kind: type[A]) -> A:
    (action,) = of(plan, kind)
    return action
