"""What may be noticed in a data set: each kind in words for many and for one, with what to do about it."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Kind(NamedTuple):
    """`many` and `one` stand behind a number; `one` is empty where it is the same. `do` says what to do about it, empty
    where nothing is asked for; DATA stands there for the data set."""

    many: str
    one: str = ""
    do: str = ""

    def told(self, count: int) -> str:
        """What is said behind the count."""
        return self.one if count == 1 and self.one else self.many

    def at(self, place: str) -> Kind:
        """The same, with a place in brackets behind it."""
        return self._replace(many=f"{self.many} ({place})", one=f"{self.one or self.many} ({place})")


_LINES = "correct these lines or delete them; they are left out"
_BOXES = "correct them in the annotation file; they are left out"
_LOST = "put the files where they belong, name their folder with --images, or take them off the list"
_UNLISTED = "add the class to the list, or delete these objects"

# --------------------------------------------------------------------------- images and files

ONLY_ANNOTATIONS = Kind("no image files found, only annotations")
MISSING = Kind("images that are missing", "image that is missing", _LOST)
MISSING_SIZE = Kind("images without a size that are missing", "image without a size that is missing", _LOST)
UNREADABLE = Kind(
    "images that cannot be read",
    "image that cannot be read",
    "replace these files or delete them; they are left out",
)
DAMAGED = Kind(
    "images that are damaged, of which a part may be missing",
    "image that is damaged, of which a part may be missing",
    "look at them; replace or delete those whose boxes lie in the missing part",
)
DARK = Kind(
    "images of 16 bits that use only the lowest 14 or fewer, and so are seen dark",
    "image of 16 bits that uses only the lowest 14 or fewer, and so is seen dark",
    "multiply the numbers of a 12-bit camera by 16, of a 14-bit one by 4, or save them with 8 bits",
)
OTHER_SIZE = Kind(
    "images whose size is not the one the annotations were made for",
    "image whose size is not the one the annotations were made for",
    "put back the images that the annotations were made for",
)
TURNED_ALONE = Kind(
    "images rotated by EXIF whose listed size is not rotated, but the boxes are",
    "image rotated by EXIF whose listed size is not rotated, but the boxes are",
)
TURNED = Kind("images rotated by EXIF, boxes turned with them", "image rotated by EXIF, boxes turned with it")
LISTED_TWICE = Kind("images listed twice, boxes put together", "image listed twice, boxes put together")
NO_SPLIT = Kind(
    "images without a split beside others that have one, in the split all",
    "image without a split beside others that have one, in the split all",
    "give them a split in the annotation file, or learn from them too: --split train,all",
)
NO_SPLIT_NAME = Kind(
    "annotation files whose names say no split, left out",
    "annotation file whose name says no split, left out",
    "open it by its own path, or end its name in train, val or test",
)
NO_LABEL_FOLDER = Kind(
    "images in folders without any label file, left out",
    "image in a folder without any label file, left out",
    "put an empty label file beside each, if they show nothing and are to be learned as background",
)
IN_NO_LIST = Kind(
    "images that are in no list, left out",
    "image that is in no list, left out",
    "add them to train.txt or another list, if they are to be used",
)
EMPTY_LISTS = Kind(
    "split lists that name no image that is here",
    "split list that names no image that is here",
    "correct the names in the list, or delete it",
)
NEW_NUMBERS = Kind("image ids that are of several images: all images get new numbers")
NO_NUMBERS = Kind("image ids are not numbers; numbered 1, 2, ...")
NO_LABELS = Kind("no image has a label file: is 'labels' beside 'images'?")
NO_ANNOTATIONS = Kind("the file has no annotations")

UNFINISHED = Kind(
    "images whose task has no finished annotation, left out",
    "image whose task has no finished annotation, left out",
    "finish them in the tool; one that shows nothing is submitted without a box",
)

# --------------------------------------------------------------------------- rows

LABEL_FILES = Kind(
    "label files that cannot be read, left out with their images",
    "label file that cannot be read, left out with its image",
    "correct these files; an empty one says that its image shows nothing",
)
LABEL_ROWS = Kind("label rows that cannot be used", "label row that cannot be used", _LINES)
OBJECTS = Kind("objects or files that cannot be used", "object or file that cannot be used", _LINES)
UNLISTED = Kind("objects of a class that is not listed", "object of a class that is not listed", _UNLISTED)
NOT_CHOSEN = Kind(
    "objects of other classes than the chosen, left out", "object of another class than the chosen, left out"
)
NO_SUCH_IMAGE = Kind(
    "annotations of an image id that is not in the file", "annotation of an image id that is not in the file", _BOXES
)
NO_SUCH_CATEGORY = Kind(
    "annotations of a category id that is not in the file",
    "annotation of a category id that is not in the file",
    _BOXES,
)
NOT_FINITE = Kind("boxes that are not finite", "box that is not finite", _BOXES)
NO_AREA = Kind(
    "boxes without an area, or with corners exchanged", "box without an area, or with corners exchanged", _BOXES
)
ONE_PIXEL = Kind(
    "boxes of one pixel or less, which end where they begin with data.inclusive_boxes",
    "box of one pixel or less, which ends where it begins with data.inclusive_boxes",
)
OUTSIDE = Kind("boxes wholly outside the image", "box wholly outside the image", _BOXES)
PARTLY_OUTSIDE = Kind(
    "boxes partly outside the image, kept and cut in training",
    "box partly outside the image, kept and cut in training",
    "nothing, they are cut; if there are many, see whether boxes and images belong together",
)
UPPER_LEFT = Kind(
    "boxes that all lie in the upper left of their images, as if these had been smaller, or 100 wide and high",
    "box that lies in the upper left of its image, as if this had been smaller, or 100 wide and high",
    "see whether they lie on the objects (fcos data show DATA); if not, write them in pixels of these images",
)
SHARES = Kind(
    "boxes of at most a pixel, as if their numbers were shares of the image",
    "box of at most a pixel, as if its numbers were shares of the image",
    "they are read as pixels: multiply x and width by the width of the image, y and height by its height",
)
Form = Literal["xyxy", "xywh", "cxcywh", "xxyy", "yxyx"]
_FORMS: dict[Form, str] = {
    "xyxy": "x1, y1, x2, y2",
    "xywh": "x, y of a corner, width, height",
    "cxcywh": "x, y of the centre, width, height",
    "xxyy": "x1, x2, y1, y2",
    "yxyx": "y1, x1, y2, x2",
}
# (how boxes were read, how they would fit) -> what is told
MEANT = {
    (read, meant): Kind(
        f"boxes that do not fit their image, as if all were {words}",
        f"box that does not fit its image, as if all were {words}",
        f"a box is read as {_FORMS[read]}: write them so, in all of the file",
    )
    for read in _FORMS
    for meant, words in _FORMS.items()
}
MISREAD = frozenset({SHARES, UPPER_LEFT, *MEANT.values()})


def without(what: str, then: str) -> Kind:
    """Images without a file of some kind, and how they are used."""
    return Kind(f"images without {what}, {then}", f"image without {what}, {then.replace('images', 'an image')}")


UNLABELLED = "used as images without objects"
LEFT_OUT = "left out"
