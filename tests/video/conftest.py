from kit.gradients import without_gradients

__all__ = ["without_gradients"]
