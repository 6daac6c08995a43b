"""Next items by RecBole 1.2.1's SASRec: run as a file, by the peers' own Python, never imported by ours.

`python recbole_lists.py EPOCHS IN.npz OUT.npz SEED`; IN and OUT as in `implicit_lists.py`. Each user's last
event of IN is for validation, as RecBole's leave-one-out has it: the model learns from what came before, and
then answers by all of IN.
"""

import contextlib
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

LISTED = 20
LONGEST = 50
_BATCH = 500
_NAME = "events"


def main(epochs: int, source: str, target: str, seed: int) -> None:
    """Train and answer."""
    events = np.load(source)
    user_E, item_E = events["user"], events["item"]
    torch.set_num_threads(1)
    # RecBole logs for TensorBoard into the folder that it runs in.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _write(Path(folder), user_E, item_E)
        config = Config(model="SASRec", dataset=_NAME, config_dict=_settings(folder, epochs, seed))
        init_seed(seed, True)
        dataset = create_dataset(config)
        train, valid, _ = data_preparation(config, dataset)
        model = SASRec(config, train.dataset)
        started = time.perf_counter()
        Trainer(config, model).fit(train, valid, saved=True, show_progress=False, verbose=False)
        training_s = time.perf_counter() - started
        checkpoint = next(Path(folder, "saved").glob("*.pth"))
        model.load_state_dict(torch.load(checkpoint, weights_only=False)["state_dict"])
    kept, excluded = _lists(model, dataset, user_E, item_E, int(events["items"]))
    np.savez(target, kept=kept, excluded=excluded, training_s=training_s)


def _settings(folder, epochs, seed):
    return {
        "data_path": folder,
        "checkpoint_dir": str(Path(folder, "saved")),
        "seed": seed,
        "epochs": epochs,
        "use_gpu": False,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": LONGEST,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "hidden_size": 64,
        "n_layers": 2,
        "n_heads": 2,
        "train_batch_size": 256,
        "eval_batch_size": 1024,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["Recall", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "stopping_step": 5,
        "show_progress": False,
        "state": "WARNING",
    }


def _write(folder, user_E, item_E):
    """Write the events as an atomic file, and after each user's last one another, in place of the test's."""
    (folder / _NAME).mkdir()
    last = np.append(np.flatnonzero(np.diff(user_E)), len(user_E) - 1)
    users, items = np.append(user_E, user_E[last]), np.append(item_E, item_E[last])
    times = np.append(np.arange(len(user_E)), np.full(len(last), len(user_E)))
    with (folder / _NAME / f"{_NAME}.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"{u}\t{i}\t{t}\n" for u, i, t in zip(users, items, times, strict=True))


@torch.inference_mode()
def _lists(model, dataset, user_E, item_E, items):
    """Return the best items by every user's whole history, with it in the ranking and without."""
    model.eval()
    number_N = np.zeros(items, np.int64)
    for token, number in dataset.field2token_id["item_id"].items():
        if number:
            number_N[int(token)] = number
    token_M = np.zeros(dataset.item_num, np.int64)
    token_M[number_N[number_N > 0]] = np.flatnonzero(number_N)
    starts = np.searchsorted(user_E, np.arange(user_E.max() + 2))
    kept, excluded = [], []
    for first in range(0, len(starts) - 1, _BATCH):
        spans = list(pairwise(starts[first : first + _BATCH + 1]))
        history_BL = torch.zeros(len(spans), LONGEST, dtype=torch.int64)
        for row, (start, end) in enumerate(spans):
            newest = number_N[item_E[max(start, end - LONGEST) : end]]
            history_BL[row, : len(newest)] = torch.from_numpy(newest)
        length_B = (history_BL > 0).sum(dim=1)
        asked = Interaction({"item_id_list": history_BL, "item_length": length_B})
        score_BM = model.full_sort_predict(asked)
        score_BM[:, 0] = -torch.inf
        kept.append(token_M[score_BM.topk(LISTED).indices.numpy()])
        score_BM.scatter_(1, history_BL, -torch.inf)
        excluded.append(token_M[score_BM.topk(LISTED).indices.numpy()])
    return np.concatenate(kept), np.concatenate(excluded)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
