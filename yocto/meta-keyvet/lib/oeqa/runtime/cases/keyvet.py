# SPDX-License-Identifier: Apache-2.0
"""keyvet on a booted image: TEST_SUITES:append = " keyvet"."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage


class KeyvetTest(OERuntimeTestCase):
    def run_on_target(self, command, want=0):
        status, output = self.target.run(command)
        self.assertEqual(status, want, msg="%s: %s" % (command, output))
        return output

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["keyvet"])
    def test_binary(self):
        self.assertIn("keyvet", self.run_on_target("keyvet version"))

    @OETestDepends(["keyvet.KeyvetTest.test_binary"])
    def test_weak_key(self):
        # RSA with 512 bits.
        key = "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAMTKN/fR4ckd+b6iSGN0Dzc9fsIOF/4lPidHBL8uoa8uJE2Soh9uS4R1n4lGMvDfg86c6pkM2HxsaG8C/sKwQm8CAwEAAQ=="
        pem = "-----BEGIN PUBLIC KEY-----\\n%s\\n-----END PUBLIC KEY-----\\n" % key
        self.run_on_target("printf -- '%s' | keyvet check -" % pem, want=1)

    @OETestDepends(["keyvet.KeyvetTest.test_binary"])
    def test_user(self):
        self.assertIn("tss", self.run_on_target("id -nG keyvet").split())

    @OETestDepends(["keyvet.KeyvetTest.test_binary"])
    def test_units(self):
        self.run_on_target("systemctl is-enabled keyvet.service")
        # It lives and dies with the agent.
        self.run_on_target("test $(systemctl is-active keyvet.service) = $(systemctl is-active keyvet-trusted.path)")

    @OETestDepends(["keyvet.KeyvetTest.test_units"])
    def test_gate(self):
        """The target follows the mark of the gate."""
        status, _ = self.target.run("test -e /run/keyvet/trusted")
        state = self.run_on_target("systemctl is-active keyvet-trusted.target || true").strip()
        self.assertEqual(state, "active" if status == 0 else "inactive")
