"""Trains the example's model: a logistic regression on the iris data set of scikit-learn. Writes model.pkl.

python -m venv /tmp/iris && /tmp/iris/bin/pip install -r requirements.txt && /tmp/iris/bin/python train.py
"""

import pickle
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent


def main() -> None:
    flowers, species = load_iris(return_X_y=True)
    seen, unseen, seen_species, unseen_species = train_test_split(
        flowers, species, test_size=0.2, random_state=0, stratify=species
    )
    model = LogisticRegression(max_iter=1000).fit(seen, seen_species)
    print(f"accuracy on flowers it has not seen: {model.score(unseen, unseen_species):.3f}")
    (HERE / "model.pkl").write_bytes(pickle.dumps(model, protocol=5))


if __name__ == "__main__":
    main()
