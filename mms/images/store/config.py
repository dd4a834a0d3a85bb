"""The OCI config of an image: how to run it, and its layers."""

from typing import Any

from mms.images.packages.install import Target
from mms.images.registry.base_image import BaseImage
from mms.images.store.layout import APP_JSON_PATH, APP_PATH, RUNTIME_PATH, SITE_PATH

EPOCH = "1970-01-01T00:00:00Z"
# Environment of the scoring program in a container; the process engine sets its own.
ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - the only folder that its user can write to
    "USER": "nobody",  # some packages ask for it
    "LOGNAME": "nobody",
    "AZUREML_MODEL_DIR": f"/{APP_PATH}/models",  # drivers written for Azure Machine Learning expect it
    "PYTHONPATH": f"/{RUNTIME_PATH}:/{SITE_PATH}",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MMS_APP": f"/{APP_JSON_PATH}",
    "MMS_LISTEN": "tcp:0.0.0.0:8080",
}


def image_config(start: BaseImage, target: Target, runtime: str, layers: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the config of an image that adds `layers`, each (content, diff id), to the base image `start`.

    It has no traces of a particular build: equal parts make an equal image.
    """
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **start.environment, **ENVIRONMENT}
    return {
        "architecture": target.platform.partition("/")[2],
        "os": "linux",
        "created": EPOCH,
        "config": {
            "User": "65534:65534",
            "WorkingDir": f"/{APP_PATH}",
            "Entrypoint": ["python3", "-P", "-m", "scoring"],  # -P: an asset must not shadow a Python module
            "ExposedPorts": {"8080/tcp": {}},
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "Labels": {"mms.python": target.python, "mms.runtime": runtime},
        },
        "rootfs": {"type": "layers", "diff_ids": start.diff_ids + [diff_id for _, diff_id in layers]},
        "history": start.history + [{"created": EPOCH, "created_by": f"mms {what}"} for what, _ in layers],
    }
