"""People as no photographer posed them: pictures bent like rubber, and turned on their side.

Photos with masks mostly show people who stand upright or look into the camera. Bending and
turning whole pictures, mask and all, keeps the network from taking that posture for what
makes a person.
"""

from __future__ import annotations

from PIL import Image

from .composition import Rng, Sample

#: Cells of the rubber sheet: columns, rows.
CELLS = (3, 4)
#: How far its inner nodes move, as a share of a cell.
STRETCH = 0.35
#: Turns, and how common each is among them: people lie more often than they stand on their head.
_TURNS = {
    Image.Transpose.ROTATE_90: 0.4,
    Image.Transpose.ROTATE_270: 0.4,
    Image.Transpose.ROTATE_180: 0.2,
}


def bent(rng: Rng, sample: Sample) -> Sample:
    """Move the inner nodes of a coarse grid at random; the picture's border stays in place."""
    columns, rows = CELLS
    width, height = sample.image.size
    across = [round(width * number / columns) for number in range(columns + 1)]
    down = [round(height * number / rows) for number in range(rows + 1)]
    moved = rng.uniform(-STRETCH, STRETCH, (rows + 1, columns + 1, 2))
    moved *= (width / columns, height / rows)
    moved[[0, -1]] = moved[:, [0, -1]] = 0

    def node(row: int, column: int) -> tuple[float, float]:
        return across[column] + moved[row, column, 0], down[row] + moved[row, column, 1]

    mesh = [
        (
            (across[column], down[row], across[column + 1], down[row + 1]),
            (
                *node(row, column),
                *node(row + 1, column),
                *node(row + 1, column + 1),
                *node(row, column + 1),
            ),
        )
        for row in range(rows)
        for column in range(columns)
    ]

    def warp(image: Image.Image) -> Image.Image:
        size, method = image.size, Image.Transform.MESH
        return image.transform(size, method, mesh, Image.Resampling.BILINEAR)

    return sample._replace(
        image=warp(sample.image), alpha=warp(sample.alpha), weight=warp(sample.weight)
    )


def turned(rng: Rng, sample: Sample) -> Sample:
    """Turn the picture by a right angle to either side, or upside down."""
    turn = Image.Transpose(rng.choice(list(_TURNS), p=list(_TURNS.values())))
    return sample._replace(
        image=sample.image.transpose(turn),
        alpha=sample.alpha.transpose(turn),
        weight=sample.weight.transpose(turn),
    )
