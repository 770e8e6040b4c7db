"""Findings into Security Hub, in the AWS Security Finding Format."""

import datetime
import os

import boto3

hub = boto3.client("securityhub")
KINDS = "Software and Configuration Checks/Vulnerabilities"


def text(value, length):
    return str(value)[:length] or "-"


def asff(message, finding, account, region, partition):
    """One finding in the AWS Security Finding Format."""
    thing = text(message["thingName"], 128)
    resource = finding["nonCompliantResource"]
    code = text(finding["reasonForNonComplianceCode"], 128)
    at = datetime.datetime.fromtimestamp(message["receivedAt"] / 1000, datetime.timezone.utc).isoformat()
    details = {**resource["resourceIdentifier"], **resource.get("additionalInfo", {}), "reportId": message["reportId"]}
    severity = finding["severity"]
    return {
        "SchemaVersion": "2018-10-08",
        "Id": "keyvet/%s/%s" % (thing, text(finding["findingId"], 128)),
        "ProductArn": "arn:%s:securityhub:%s:%s:product/%s/default" % (partition, region, account, account),
        "ProductName": "keyvet",
        "GeneratorId": "keyvet/" + text(finding["checkName"], 128),
        "AwsAccountId": account,
        "Types": [KINDS + "/CVE" if "CVE-" in code else KINDS],
        "CreatedAt": at,
        "UpdatedAt": at,
        "Severity": {"Label": severity if severity in ("LOW", "MEDIUM", "HIGH", "CRITICAL") else "MEDIUM", "Original": text(severity, 64)},
        "Title": text("%s on %s" % (code, thing), 256),
        "Description": text(finding["reasonForNonCompliance"], 1024),
        "Resources": [{
            "Type": "Other",
            "Id": "arn:%s:iot:%s:%s:thing/%s" % (partition, region, account, thing),
            "Partition": partition,
            "Region": region,
            "Details": {"Other": {text(name, 64): text(value, 1024) for name, value in list(details.items())[:40]}},
        }],
    }


def handler(message, context):
    partition, account = context.invoked_function_arn.split(":")[1], context.invoked_function_arn.split(":")[4]
    found = [asff(message, f, account, os.environ["AWS_REGION"], partition) for f in message["findings"][:100]]
    answer = hub.batch_import_findings(Findings=found) if found else {"FailedCount": 0}
    if answer["FailedCount"]:
        raise RuntimeError("not imported: %s" % answer["FailedFindings"])
