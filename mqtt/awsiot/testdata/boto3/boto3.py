"""boto3 as the functions use it, with the account of a test behind it."""

import base64
import datetime
import io
import json
import os
import urllib.request


class Failure(Exception):
    """An error of a service, by its name."""

    def __init__(self, response):
        super().__init__(response["Error"]["Code"])
        self.response = response


class Exceptions:
    def __init__(self):
        self.classes = {}

    def __getattr__(self, name):
        return self.classes.setdefault(name, type(name, (Failure,), {}))


def encode(value):
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    raise TypeError(type(value))


class Waiter:
    def __init__(self, wait):
        self.wait = wait


class Client:
    def __init__(self, service):
        self.service = service
        self.exceptions = Exceptions()

    def get_waiter(self, name):
        return Waiter(lambda **arguments: self.call("wait_" + name, arguments))

    def call(self, operation, arguments):
        body = json.dumps({"service": self.service, "operation": operation, "arguments": arguments}, default=encode).encode()
        with urllib.request.urlopen(urllib.request.Request(os.environ["ACCOUNT"], body)) as r:
            answer = json.load(r)
        if answer.get("error"):
            failure = getattr(self.exceptions, answer["error"])
            raise failure({"Error": {"Code": answer["error"]}, **(answer.get("response") or {})})
        result = answer.get("result") or {}
        if "Payload" in result:
            result["Payload"] = io.BytesIO(base64.b64decode(result["Payload"]))
        return result

    def __getattr__(self, operation):
        return lambda **arguments: self.call(operation, arguments)


def client(service, **_):
    return Client(service)
