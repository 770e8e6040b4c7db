"""The old certificate goes once a passing report came under the new one."""

import things


def handler(event, _context):
    """event is the rule's: which thing's topic, under which certificate, and the verdict."""
    thing, current = event["thing"], event["principal"]
    if event.get("verdict") not in ("PASS", "WARN"):
        return []
    own = things.certificates(thing) or []
    if current not in own:
        raise RuntimeError("a report of %s came under %s, which is not its certificate" % (thing, current))
    born = things.certificate(current)["creationDate"]
    retired = []
    for other in own:
        if other == current:
            continue
        found = things.certificate(other)
        # A report that waited comes under the old certificate, and must not end the new one.
        if found["status"] == "ACTIVE" and found["creationDate"] < born:
            things.deactivate(other)
            retired.append(other)
    if retired:
        print({"thing": thing, "current": current, "deactivated": retired})
    return retired
