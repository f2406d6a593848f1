"""The TFDS builder of the public Kaggle archive."""

import tensorflow_datasets as tfds

from jaxcnn.data.labelled_scans import VERSION, LabelledScans


class BrainTumorMri(LabelledScans, skip_registration=True):  # type: ignore[call-arg]
    """The public Kaggle archive, in brain_tumor_mri/128x128/1.0.0; see `jaxcnn.data.kaggle`.

    Its splits are train and test; the archive names no patients, and so these files don't, either.
    """

    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.describe(
            "Brain MRI slices of four classes; 8-bit grey, resized with an antialiased triangle filter.",
            homepage="https://www.kaggle.com/datasets/bilalakgz/brain-tumor-mri-dataset",
        )
