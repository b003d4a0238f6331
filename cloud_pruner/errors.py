"""What can go wrong in the cloud, from a folder of images to a request.

PrunerError
├── ImageDataError     (ValueError)   images that cannot be read, or that do not fit together or the model
├── ConversionError                   a trained network that cannot be turned into a .tflite, or not into an equal one
├── ProfileError       (ValueError)   a profile folder that is missing, damaged, or of another model
├── RequestError       (ValueError)   a wish that cannot be met: unknown classes, bad weights, an impossible epsilon
├── CertificationError (RequestError) a guarantee that the profile's images are too few for
├── SigningKeyError    (ValueError)   a folder of signing keys that is missing, damaged, or open to others
├── StateError         (ConnectionError)  the service's database or its store of files cannot be used now
├── StateVersionError  (ValueError)   a database that is no service's, or another version's
├── NameTakenError     (ValueError)   a name, or a turn, that another has already
├── UnknownNameError   (LookupError)  a device, operator or model that nobody has registered
└── MissingExtraError  (ImportError)  a package of an optional extra is not installed

Every message says what was wrong, where, and what to do about it, on one line.
"""

from __future__ import annotations

__all__ = [
    "CertificationError",
    "ConversionError",
    "ImageDataError",
    "MissingExtraError",
    "NameTakenError",
    "ProfileError",
    "PrunerError",
    "RequestError",
    "SigningKeyError",
    "StateError",
    "StateVersionError",
    "UnknownNameError",
]


class PrunerError(Exception):
    """Base of every error that this package raises on purpose."""


class ImageDataError(PrunerError, ValueError):
    """Images are missing, damaged, of the wrong size, or too few."""


class ConversionError(PrunerError):
    """A trained network cannot be converted, or its conversion computes something else."""


class ProfileError(PrunerError, ValueError):
    """A profile folder is missing or damaged, or belongs to another model."""


class RequestError(PrunerError, ValueError):
    """A request names unknown classes, or has weights or limits that make no sense."""


class CertificationError(RequestError):
    """The images at hand are too few to certify anything at the wanted epsilon and delta."""


class SigningKeyError(PrunerError, ValueError):
    """A folder of signing keys is missing, damaged or open to others, or a key cannot be made or taken out."""


class StateError(PrunerError, ConnectionError):
    """The service's database or its store of files cannot be used now; it may be in the next moment."""


class StateVersionError(PrunerError, ValueError):
    """A database is not the state of a service, or has the schema of another version."""


class NameTakenError(PrunerError, ValueError):
    """A device or operator of that name is there already, or a model has another rollout under way."""


class UnknownNameError(PrunerError, LookupError):
    """There is no device, operator or model of that name, or no rollout to go on with."""


class MissingExtraError(PrunerError, ImportError):
    """A package that belongs to an optional extra is not installed."""
