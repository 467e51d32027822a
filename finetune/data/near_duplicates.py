"""Near-duplicates, and which split a picture belongs to.

Two pictures are near-duplicates if their perceptual hashes, or that of one and the mirror
image of the other, differ in at most :data:`NEAR` bits. Groups of near-duplicates (and of
near-duplicates of those) share one split. A group's split is drawn by a hash of its
identity, so that adding pictures moves none that was there before; a split that a
manifest or an earlier run states is kept.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from scipy import sparse
from scipy.sparse import csgraph

from .manifest import Split

#: Side of the perceptual hash; it has HASH_SIDE² bits.
HASH_SIDE = 16
#: Largest Hamming distance, in bits of 256, of near-duplicates: other shots of one scene lie
#: below, other scenes mostly above 70.
NEAR = 60
#: A picture whose grey levels have a smaller standard deviation cannot be recognised.
_FLAT = 2.0
#: The split of near-duplicates that are stated to be in several is the one of lowest rank.
_RANK: dict[Split, int] = {"test": 0, "val": 1, "train": 2}
_BLOCK = 4096


@dataclass(frozen=True)
class Fingerprint:
    """What is known of a picture when splits are assigned."""

    #: SHA-256 of the picture's file.
    sha256: str
    #: Perceptual hashes of the picture and of its mirror image, hexadecimal; empty if flat.
    hashes: tuple[str, str] | tuple[()]
    #: The split that a manifest or an earlier run states.
    stated: Split | None = None


@dataclass(frozen=True)
class Assignment:
    """The split of a picture."""

    split: Split
    #: Index of the group's first picture.
    group: int
    #: Index of a near-duplicate in a split of higher rank, because of which this picture cannot
    #: stay in its stated split; None if there is none.
    clashes_with: int | None = None


def perceptual_hashes(image: Image.Image) -> tuple[str, str] | tuple[()]:
    """DCT hashes (pHash) of an RGB picture and of its mirror image; () if it is flat.

    Robust against scale, compression and brightness. The hash of a flat picture would be that
    of its noise.
    """
    # Still more than the hash needs; imagehash's own Lanczos filter then runs on few pixels.
    small = image.convert("L").resize((256, 256), Image.Resampling.BOX, reducing_gap=1.0)
    if float(np.asarray(small, np.float32).std()) < _FLAT:
        return ()
    return (
        str(imagehash.phash(small, HASH_SIDE)),
        str(imagehash.phash(ImageOps.mirror(small), HASH_SIDE)),
    )


def near_duplicates(
    hashes: Sequence[tuple[str, str] | tuple[()]], near: int = NEAR
) -> Iterator[tuple[int, int]]:
    """Pairs of indices (i < j) of near-duplicates.

    All pairs are compared, as one matrix product in blocks: with bits as ±1, the inner
    product of two hashes of n bits is n − 2 · (their Hamming distance). 100 000 pictures
    take about a minute.
    """
    known = np.array([index for index, pair in enumerate(hashes) if pair], int)
    if len(known) < 2:
        return
    bits = _signs([hashes[index][0] for index in known])
    mirrored = _signs([hashes[index][1] for index in known])
    least = bits.shape[1] - 2 * near
    for start in range(0, len(known), _BLOCK):
        rows = bits[start : start + _BLOCK]
        for stop in range(start, len(known), _BLOCK):
            columns = slice(stop, stop + _BLOCK)
            alike = np.maximum(rows @ bits[columns].T, rows @ mirrored[columns].T) >= least
            for i, j in zip(*np.nonzero(alike), strict=True):
                first, second = int(known[start + i]), int(known[stop + j])
                if first < second:
                    yield first, second


def groups(fingerprints: Sequence[Fingerprint], near: int = NEAR) -> list[int]:
    """For each picture, the index of the first one of its group of near-duplicates."""
    if not fingerprints:
        return []
    same_file: dict[str, int] = {}
    pairs = [(same_file.setdefault(one.sha256, i), i) for i, one in enumerate(fingerprints)]
    pairs += near_duplicates([fingerprint.hashes for fingerprint in fingerprints], near)
    edges = np.array(pairs).T
    graph = sparse.coo_matrix((np.ones(len(pairs)), edges), shape=(len(fingerprints),) * 2)
    component = csgraph.connected_components(graph, directed=False)[1]
    _, first, of = np.unique(component, return_index=True, return_inverse=True)
    return [int(index) for index in first[of]]


def assign(
    fingerprints: Sequence[Fingerprint], val: float, test: float, near: int = NEAR
) -> list[Assignment]:
    """Give every picture a split.

    ``val`` and ``test`` are the shares of groups drawn into those splits where nothing is
    stated. In a group with several stated splits, test wins over val and val over train:
    pictures stated to be elsewhere clash, the others join the winner.
    """
    of = groups(fingerprints, near)
    together: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(of):
        together[group].append(index)
    result: dict[int, Assignment] = {}
    for group, indices in together.items():
        stated = [i for i in indices if fingerprints[i].stated]
        holder = min(stated, key=lambda i: _RANK[_stated(fingerprints[i])], default=None)
        if holder is None:
            split = _drawn(min(fingerprints[i].sha256 for i in indices), val, test)
        else:
            split = _stated(fingerprints[holder])
        for i in indices:
            clashes = fingerprints[i].stated not in (None, split)
            result[i] = Assignment(split, group, holder if clashes else None)
    return [result[index] for index in range(len(fingerprints))]


def _stated(fingerprint: Fingerprint) -> Split:
    assert fingerprint.stated is not None
    return fingerprint.stated


def _drawn(identity: str, val: float, test: float) -> Split:
    digest = hashlib.sha256(f"split:{identity}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    # Test is at one end and val at the other, so that changing one share leaves the other alone.
    if position < test:
        return "test"
    return "val" if position >= 1 - val else "train"


def _signs(hashes: Sequence[str]) -> npt.NDArray[np.float32]:
    """(N,) hexadecimal hashes → (N, bits) of ±1."""
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
