"""LeRobot's side of ``videos``, run by a Python that has its package and not ours.

It answers as ``sides.serve`` does, whose module lies beside this script.
"""

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
BATCH = 64


def main(folder: str, camera: str, workers: int) -> None:
    import sides
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("local/benchmark", root=folder)
    print(f"{len(data)} steps, {data.video_backend}", file=sys.stderr)

    loader = torch.utils.data.DataLoader(
        data,
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
    )

    def batches():
        while True:
            for batch in loader:
                yield batch[camera].numpy()

    sides.serve(batches(), 8)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
