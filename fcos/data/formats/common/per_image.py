"""The way of `pages.py` for formats with an annotation file for each image, which is called as the image is."""

from __future__ import annotations

import os
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ....errors import DataError
from ....system.files import folded
from ... import kinds
from ...dataset import Dataset, Note, Sources
from ...images.reading import SUFFIXES
from ...probe import stem_of
from ...tree import Tree
from .assemble import Problems
from .lists import Namesakes, share_out, told
from .pages import Draft, Page, Reading, in_order
from .pairing import clean_name, folder_key, uploaded


class _Entry(NamedTuple):
    """An annotation file (None: no file says anything) and the image that it belongs to (None: not there)."""

    file: Path | None
    image: Path | None
    name: str


class FilePerImage(Reading):
    """How the files of one format are read, each of which belongs to one image and is called as it is."""

    @property
    def root(self) -> Path:
        return self.source or self.tree.root

    def _parsed(self, file: Path) -> list[Page]:
        """A file that cannot be read is a page that is left out."""
        try:
            return super()._parsed(file)
        except DataError as error:
            return [Page("", None, (), problems=(str(error),), left_out=kinds.LABEL_FILES)]

    def sources(self) -> Sources:
        if not self.files:
            return {}
        parts, notes = self._parts()
        return told({s: partial(self._read_entries, s, parts[s]) for s in in_order(parts)}, notes)

    def _parts(self) -> tuple[dict[str, list[_Entry]], tuple[Note, ...]]:
        tree = self.tree
        paired = [_Entry(f, tree.pair(f), "") for f in self.files]
        entries = _without_guesses(paired)
        if not any(e.image for e in paired):  # the files name their images, perhaps otherwise than themselves
            entries = _without_guesses([self._by_stated_name(e) for e in entries]) if len(tree.images) else entries
        named = self._listed(entries)
        listed, notes = share_out(named, entries, tree.lists, self._split_of, lambda e: str(e.file))
        if listed:
            return listed, notes
        parts: dict[str, list[_Entry]] = defaultdict(list)
        for entry in entries:
            parts[self._split_of(entry) or "all"].append(entry)
        _several_sets(tree, {s: [e.file for e in part if e.file] for s, part in parts.items()})
        return dict(parts), notes

    def _split_of(self, entry: _Entry) -> str | None:
        """What the folders of the file say, or those of its image."""
        assert entry.file is not None
        split = self.tree.split_of(entry.file)
        return split or (self.tree.images.splits.get(entry.image) if entry.image else None)

    def _by_stated_name(self, entry: _Entry) -> _Entry:
        assert entry.file is not None
        page = (self.pages(entry.file) or [Page("", None, ())])[0]
        if not page.name:
            return entry
        image = self.tree.images.locate([clean_name(page.name, entry.file)], entry.file, None)[0]
        return _Entry(entry.file, image, page.name)

    def _listed(self, entries: list[_Entry]) -> dict[str, list[_Entry]]:
        """The entries by split lists (train.txt, ImageSets/Main/val.txt); none of a list that fits nothing, and none at
        all where no list names a file."""
        by_stem: dict[str, list[_Entry]] = defaultdict(list)
        for entry in entries:
            assert entry.file is not None
            for stem in {folded(stem_of(entry.file)), *([folded(entry.image.stem)] if entry.image else [])}:
                by_stem[stem].append(entry)
        parts: dict[str, list[_Entry]] = {}
        near: dict[str, Namesakes[_Entry]] = {}
        hits = 0
        for split, lines in self.tree.lists.items():
            part = []
            for line in lines:
                name = clean_name(line, self.tree.root)
                folders, stem = name.split("/")[:-1], name.rpartition("/")[2]
                stem = os.path.splitext(stem)[0] if os.path.splitext(stem)[1].lower() in SUFFIXES else stem
                same = by_stem.get(folded(stem), [])
                if len(same) > 1:
                    if stem not in near:
                        near[stem] = Namesakes({e: folder_key(self.tree.folders(e.file)) for e in same if e.file})
                    same = near[stem].nearest(folder_key(folders))
                hits += len(same) == 1
                part.append(same[0] if len(same) == 1 else _Entry(None, self.tree.images.pair(folders, stem), name))
            parts[split] = part if any(e.file or e.image for e in part) else []
        return parts if hits else {}

    def _read_entries(self, split: str, entries: list[_Entry]) -> Dataset:
        problems = Problems(self.root, self.strict)
        alone = not any(e.image for e in entries)
        if entries and alone:
            first = entries[0].file or entries[0].name
            problems.note(kinds.ONLY_ANNOTATIONS, f"{first}", len(entries))
        draft = Draft(self, problems)
        for entry in entries:
            pages = self.pages(entry.file) if entry.file else [Page(entry.name, None, ())]
            where = entry.file.name if entry.file else entry.name
            if entry.image is None and not alone:
                problems.skip(kinds.MISSING, str(entry.file or entry.name))
                continue
            if entry.file is None:
                problems.note(kinds.without(f"an {self.noun}", kinds.UNLABELLED), entry.name)
            for page in pages:
                if page.left_out is not None:
                    problems.skip(page.left_out, f"{where}: {page.problems[0]}" if page.problems else where)
                    continue
                draft.add(page, entry.image, where, self._name(entry, page))
        unused = self._unlabelled(split, entries)
        if unused:
            problems.note(kinds.without(f"an {self.noun}", kinds.LEFT_OUT), unused[0].name, len(unused))
        return draft.dataset(split)

    def _name(self, entry: _Entry, page: Page) -> str:
        if entry.image is not None:
            return entry.image.relative_to(self.tree.images.root).as_posix()
        if page.name:
            return clean_name(page.name, entry.file or self.tree.root)
        name = entry.name or (stem_of(entry.file) if entry.file else "")
        return name if os.path.splitext(name)[1].lower() in SUFFIXES else f"{name}.jpg"

    def _unlabelled(self, split: str, entries: list[_Entry]) -> list[Path]:
        """Images beside those of this split that no file speaks of."""
        if self.tree.lists:
            return []
        taken = {e.image for e in entries}
        folders = {i.parent for i in taken if i}
        splits, paths = self.tree.images.splits, self.tree.images.paths
        return [p for p in paths if p not in taken and p.parent in folders and (splits[p] or "all") == split]


def _without_guesses(entries: list[_Entry]) -> list[_Entry]:
    """Take the image from a file that found it by its Label Studio upload name only, if another file claims the same
    image: several uploads had one name, and nobody knows which is meant."""
    claims: dict[Path, list[int]] = defaultdict(list)
    for k, entry in enumerate(entries):
        if entry.image is not None:
            claims[entry.image].append(k)
    result = list(entries)
    for image, ks in claims.items():
        foreign = [k for k in ks if folded(_named(entries[k])) != folded(image.stem)]
        uploads = [k for k in foreign if uploaded(_named(entries[k]))]
        if len(ks) > 1:
            for k in uploads:
                result[k] = entries[k]._replace(image=None)
    return result


def _named(entry: _Entry) -> str:
    """The stem by which an entry has its image: of the name that its file states, or of the file."""
    name = entry.name or (entry.file.name if entry.file else "")
    return stem_of(Path(name.rpartition("/")[2]))


def _several_sets(tree: Tree, parts: dict[str, list[Path]]) -> None:
    """DataError where two folders of the root each hold a whole set: the same splits, or lists of their own."""
    places: dict[str, set[str]] = defaultdict(set)
    for split, files in parts.items():
        for file in files:
            key = [k for k in folder_key(tree.folders(file)) if not k.startswith("<")]
            if key:
                places[key[-1] if len(key) == 1 else "/".join(key)].add(split)
    whole = sorted(name for name, splits in places.items() if len(splits - {"all"}) > 1)
    if len(whole) > 1:
        raise DataError(f"{tree.root} holds several data sets: {', '.join(whole[:8])}; name one")
