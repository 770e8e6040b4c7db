// Validates the log of SARIF on standard input. Usage: node validate.js MODULES
const path = require("path");
const modules = process.argv[2];
const Ajv = require(path.join(modules, "ajv"));
const schema = require(path.join(modules, "@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json"));
let text = "";
process.stdin.on("data", part => text += part).on("end", () => {
  const ajv = new Ajv({ allErrors: true, unknownFormats: "ignore", schemaId: "auto", meta: false, logger: false });
  for (const name of ["json-schema-draft-04.json", "json-schema-draft-07.json", "json-schema-draft-06.json"]) {
    try { ajv.addMetaSchema(require(path.join(modules, "ajv/lib/refs", name))); } catch (e) { if (!/exists/.test(e)) throw e; }
  }
  const log = JSON.parse(text);
  delete log.$schema; // it may name a later publication of the same schema
  if (!ajv.validate(schema, log)) {
    for (const e of ajv.errors) console.log(e.dataPath + " " + e.message + " " + JSON.stringify(e.params));
    process.exit(1);
  }
});
