from .base import TargetFunction as TargetFunction
from .dense import Detection as Detection, Region as Region
from .vectors import ClassSet as ClassSet, Similarity as Similarity
