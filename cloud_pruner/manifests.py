"""What a manifest says of a file beyond the request it answers: what makes it, what it answers, how sure it is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cloud_pruner.self_tests import self_test_of
from edge_runtime.digests import digest_of
from edge_runtime.wire import Manifest, PlanFile

if TYPE_CHECKING:
    from cloud_pruner.profile import Profile

__all__ = ["base_manifest", "complete"]


def base_manifest(profile: Profile) -> Manifest:
    """Return the manifest of the profiled base model itself, which a device starts with.

    Raises
    ------
    ModelFileError
        As `complete`.
    """
    base = profile.base
    manifest = Manifest(
        digest=base.digest,
        bytes=len(base.content),
        base=base.digest,
        profile=profile.digest,
        classes=profile.classes,
        preprocessing=profile.preprocessing,
        usage={},
        variant="none",
        epsilon=0.0,
        guarantee="none",
        relative_size=1.0,
        parameters=base.graph.parameters,
        per_class={},
        cache_tier="none",
        temperature=profile.temperature,
    )
    return complete(manifest, b"", base.content)


def complete(manifest: Manifest, plan: bytes, model: bytes | memoryview) -> Manifest:
    """Return the manifest of `model`, which the encoded `plan` makes from the base, with what the files themselves say.

    Raises
    ------
    ModelFileError
        The interpreter refuses the file, or fails: no device could use it.
    """
    return dataclasses.replace(
        manifest,
        plan=None if manifest.is_base else PlanFile(digest_of(plan), len(plan)),
        self_test=self_test_of(model, manifest),
    )
