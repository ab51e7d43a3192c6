"""Fd stores over a takeover: what services have stored goes to the successor of the supervisor."""

import contextlib
import logging
import weakref
from collections.abc import Mapping, Sequence

from sockact import service_directives as d
from sockact.rendezvous.arrive import Parked, close_parked
from sockact.rendezvous.takeover import Tenure
from sockact.supervise.house import log
from sockact.supervise.renew import Service
from sockact.supervise.store import Stored


class Stores:
    """The fd stores of all services of one supervisor."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        """Look after the stores of `services`, also of those that are added later."""
        self._services = services
        self._mirrored: weakref.WeakSet[Service] = weakref.WeakSet()

    def restore(self, parked: Sequence[Parked]) -> None:
        """Give services what they had stored with the former owner; takes ownership of it.

        What has been removed there since is removed here.
        """
        unwanted: dict[str, list[Parked]] = {}
        for one in parked:
            name = one.service
            service = self._services.get(name)
            if service is None or not service.spec.get(d.FD_STORE_MAX):
                unwanted.setdefault(name, []).append(one)
            elif one.removed:
                service.store.remove(one.name, one.handle)
                one.handle.close()
            else:
                for refusal in service.store.add(one.name, [one.handle], poll=one.poll):
                    log(logging.WARNING, name, f"not stored: {refusal}")
        for name, found in unwanted.items():
            if count := sum(not one.removed for one in found):
                text = f"{count} stored descriptors are not wanted any more"
                log(logging.WARNING, name, text)
            close_parked(found)

    def mirror(self, tenure: Tenure) -> None:
        """Have the tenure pass on whatever the services have stored, and store from now on."""
        for service in self._services.values():
            if service not in self._mirrored:
                self._mirrored.add(service)
                _mirror(service, tenure)


def _mirror(service: Service, tenure: Tenure) -> None:
    def added(one: Stored) -> None:
        with contextlib.suppress(OSError):
            tenure.add_stored(service.name, one.name, one.handle, poll=one.poll)

    def removed(one: Stored) -> None:
        tenure.remove_stored(service.name, one.name, one.handle)

    for one in reversed(service.store.entries()):
        added(one)
    service.store.added, service.store.removed = added, removed
