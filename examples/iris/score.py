"""The driver of the iris example: names the species of iris flowers from their four measurements."""

import pickle

import numpy as np

SPECIES = ["setosa", "versicolor", "virginica"]
model = None


def init():
    """Load the model, once, before the first request."""
    global model
    with open("model.pkl", "rb") as file:
        model = pickle.load(file)


def run(data):
    """Score flowers.

    data: rows of [sepal length, sepal width, petal length, petal width] in cm.
    Returns the species of each row and how sure the model is of it.
    """
    rows = np.asarray(data, dtype=float)
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise ValueError("data must be a list of rows with four numbers each")
    certainty = model.predict_proba(rows)
    best = certainty.argmax(axis=1)
    return {
        "species": [SPECIES[index] for index in best],
        "probability": [round(float(row[index]), 4) for row, index in zip(certainty, best, strict=True)],
    }
