"""From images to masks with a trained model."""

from segwright.inference.levels import TreeDecoder
from segwright.inference.predict import Config, Predictor

__all__ = ["Config", "Predictor", "TreeDecoder"]
