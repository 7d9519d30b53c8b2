"""Real pipelines of diffusers with tiny random components, and what is planned for them."""

from kit.zoo.entry import Entry
from kit.zoo.pictures import PICTURES
from kit.zoo.videos import VIDEOS_AND_SOUNDS

ENTRIES: tuple[Entry, ...] = (*PICTURES, *VIDEOS_AND_SOUNDS)
