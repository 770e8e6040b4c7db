// Prints every mistake of the template, one a line, and how many resources it has.
import { loadAwsServiceSpec } from '@aws-cdk/aws-service-spec';
import { readFileSync } from 'node:fs';

const template = JSON.parse(readFileSync(0));
const db = await loadAwsServiceSpec();
const known = new Map([...db.all('resource')].map(r => [r.cloudFormationType, r]));
const types = new Map([...db.all('typeDefinition')].map(t => [t.$id, t]));
const wrong = [];

// What may stand for any value, and has to be seen into where it is a choice.
function intrinsic(v) {
  const names = Object.keys(v);
  return names.length === 1 && (names[0] === 'Ref' || names[0].startsWith('Fn::')) ? names[0] : null;
}

function isPrimitive(type, v) {
  switch (type) {
    case 'string': return ['string', 'number', 'boolean'].includes(typeof v);
    case 'number': return typeof v === 'number' || typeof v === 'string' && v !== '' && Number.isFinite(Number(v));
    case 'integer': return Number.isInteger(Number(v)) && v !== '' && typeof v !== 'boolean';
    case 'boolean': return [true, false, 'true', 'false'].includes(v);
    case 'date-time': return typeof v === 'string';
  }
  return null;
}

function check(path, type, v) {
  if (v === null || v === undefined) return wrong.push(`${path}: no value`);
  if (typeof v === 'object' && !Array.isArray(v)) {
    const form = intrinsic(v);
    if (form === 'Fn::If') {
      for (const choice of v[form].slice(1)) if (choice?.Ref !== 'AWS::NoValue') check(path, type, choice);
      return;
    }
    if (form) return;
  }
  const primitive = isPrimitive(type.type, v);
  if (primitive !== null) {
    if (!primitive) wrong.push(`${path}: ${JSON.stringify(v)} is no ${type.type}`);
    if (type.allowedValues && !type.allowedValues.map(String).includes(String(v))) wrong.push(`${path}: ${v} is none of ${type.allowedValues}`);
    return;
  }
  switch (type.type) {
    case 'json': case 'tag': return;
    case 'array':
      if (!Array.isArray(v)) return wrong.push(`${path}: no list`);
      return v.forEach((item, i) => { if (item?.Ref !== 'AWS::NoValue') check(`${path}[${i}]`, type.element, item); });
    case 'map':
      if (typeof v !== 'object' || Array.isArray(v)) return wrong.push(`${path}: no map`);
      return Object.entries(v).forEach(([name, item]) => check(`${path}.${name}`, type.element, item));
    case 'ref': return properties(path, types.get(type.reference.$ref).properties, v);
    case 'union': {
      const before = wrong.length;
      let best = null;
      for (const t of type.types) {
        check(path, t, v);
        const found = wrong.splice(before);
        if (found.length === 0) return;
        if (best === null || found.length < best.length) best = found;
      }
      return wrong.push(...best);
    }
  }
  wrong.push(`${path}: the specification has a type ${type.type}, which is not known here`);
}

function properties(path, allowed, v) {
  if (typeof v !== 'object' || Array.isArray(v)) return wrong.push(`${path}: no object`);
  for (const [name, value] of Object.entries(v)) {
    if (!allowed[name]) wrong.push(`${path}.${name}: there is no such property`);
    else check(`${path}.${name}`, allowed[name].type, value);
  }
  for (const [name, p] of Object.entries(allowed)) if (p.required && v[name] === undefined) wrong.push(`${path}.${name} is required`);
}

function attributes(path, v) {
  if (Array.isArray(v)) return v.forEach((item, i) => attributes(`${path}[${i}]`, item));
  if (v === null || typeof v !== 'object') return;
  const get = v['Fn::GetAtt'];
  const named = [];
  if (get) named.push(Array.isArray(get) ? get.join('.') : get);
  if (typeof v['Fn::Sub'] === 'string') for (const [, name] of v['Fn::Sub'].matchAll(/\$\{([A-Za-z0-9]+\.[A-Za-z0-9.]+)\}/g)) named.push(name);
  for (const n of named) {
    const [resource, ...rest] = n.split('.');
    const spec = known.get(template.Resources[resource]?.Type);
    if (!spec || !spec.attributes[rest.join('.')] && !spec.properties[rest.join('.')]) wrong.push(`${path}: ${n} is no attribute`);
  }
  Object.entries(v).forEach(([name, item]) => attributes(`${path}.${name}`, item));
}

for (const [name, r] of Object.entries(template.Resources)) {
  for (const member of Object.keys(r)) {
    if (!['Type', 'Properties', 'DependsOn', 'Condition', 'DeletionPolicy', 'UpdateReplacePolicy', 'Metadata'].includes(member)) wrong.push(`${name}: there is no ${member}`);
  }
  if (r.Type.startsWith('Custom::')) continue;
  const spec = known.get(r.Type);
  if (!spec) wrong.push(`${name}: there is no type ${r.Type}`);
  else properties(name, spec.properties, r.Properties ?? {});
}
attributes('Resources', template.Resources);
attributes('Outputs', template.Outputs);
for (const w of wrong) console.log(w);
console.log(`${Object.keys(template.Resources).length} resources, ${wrong.length} errors`);
process.exit(wrong.length ? 1 : 0);
