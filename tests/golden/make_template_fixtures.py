"""Makes tests/golden/templates: what the chat template tests need on a machine without ../shared.

    python3 tests/golden/make_template_fixtures.py [../shared/golden/templates]

- a subset of the golden renderings (templates, conversations, expected.jsonl), copied;
- language.jsonl: snippets of the template language rendered by Jinja2 itself (3.1.6), set up as
  transformers does it for chat templates. The first line holds the variables, the others
  {"template", "expected"}, or {"template", "error"} where Jinja2 refuses.
"""

import datetime
import json
import pathlib
import shutil
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

NAMES = [
    "gguf-smollm2",
    "gguf-qwen-0.5b",
    "Qwen-Qwen3-0.6B",
    "meta-llama-Llama-3.1-8B-Instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "google-gemma-2-2b-it",
    "gguf-phi-3",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
]

VARIABLES = json.loads(r"""
{
  "s": "Hello World",
  "e": "",
  "u": "Zürich 日本語 😀",
  "n": 5,
  "neg": -7,
  "f": 2.5,
  "t": true,
  "fa": false,
  "no": null,
  "l": [3, 1, 2],
  "ls": ["b", "A", "c", "a"],
  "d": {"b": 1, "a": [1, 2.5, null, true], "items": "x", "k y": {"z": "q"}},
  "el": [],
  "ed": {},
  "msgs": [{"role": "system", "content": "S"}, {"role": "user", "content": "U1"}, {"role": "assistant", "content": "A1", "tool_calls": [{"id": "1"}]}, {"role": "user", "content": "U2"}],
  "html": "<a href=\"x\">&'</a>",
  "nl": "one\ntwo\n\n three\n",
  "nested": [[1, 2], [3, 4], [5, 6]],
  "big": 9007199254740993,
  "ws": " \t x y \n"
}
""")

# One template a line.
LINES = r"""
{{ s }}|{{ e }}|{{ n }}|{{ f }}|{{ t }}|{{ fa }}|{{ no }}|{{ l }}|{{ d }}|{{ undefinedvar }}
{{ [1, 2.0, 'a', "b'c", 'q"', none, true, (1,), (1, 2), {}, [], {'a': 'b'}] }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}
{{ 1/3 }} {{ 1e20 }} {{ 1e16 }} {{ 1e15 }} {{ 123456789012345680.0 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.5e-7 }} {{ 100.0 }} {{ 3.0 * 2 }} {{ 1e400 }} {{ 0.1 + 0.2 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }}
{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_0.5_0 }} {{ 1e3 }}
{{ 'a' 'b' "c" }} {{ 'a' ~ 1 ~ none ~ 2.0 ~ true ~ undefinedvar }} {{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ [1] * 2 + [2] }} {{ (1,) + (2,) }} {{ 'x' * -1 }}|
{{ 'a\nb\tc\\d\'e\"f\x41\u00e9\U0001F600\101\q\é\問\😀' }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 == true }} {{ 'a' < 'b' }} {{ 'é' > 'z' }} {{ [1,2] < [1,3] }} {{ (1,2) == (1,2) }} {{ [1] == (1,) }} {{ none == none }} {{ none == false }} {{ undefinedvar == undefinedvar2 }} {{ undefinedvar == none }}
{{ 2 in l }} {{ 'ell' in s }} {{ 'b' in d }} {{ 'zz' not in d }} {{ 1 in (1,2) }} {{ 'x' in undefinedvar }} {{ not 1 in l }} {{ none in [none] }} {{ 1.0 in [1] }}
{{ true and 'x' }} {{ 0 or 'y' }} {{ '' or none or 0 }} {{ not '' }} {{ not not 1 }} {{ 1 and 0 and 2 }}
{{ 'a' if t else 'b' }} {{ 'a' if fa else 'b' }} [{{ 'a' if fa }}] {{ 1 if fa else 2 if fa else 3 }} {{ (1 if t else 2) + 1 }}
{{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[:3] }} {{ s[3:] }} {{ s[::-1] }} {{ s[::2] }} {{ s[-3:-1] }} {{ s[10:2:-2] }} {{ s[100:] }}| {{ s[-100:2] }} [{{ s[100] }}]
{{ u[0] }} {{ u[1] }} {{ u[7] }} {{ u[-1] }} {{ u[7:10] }} {{ u[::-1] }} {{ u|length }} {{ u[::3] }} {{ u[-2::-4] }}
{{ l[0] }} {{ l[-1] }} {{ l[1:] }} {{ l[::-1] }} {{ l[5] }} {{ (1,2,3)[1:] }} {{ l.0 }} {{ nested.1.0 }} {{ nested[1][0] }} {{ range(10)[2:8:3] }} {{ range(10)[3] }} {{ range(10)[-1] }}
{{ d.b }} {{ d['b'] }} {{ d.a[1] }} {{ d['items'] }} {{ d['k y'].z }} {{ d.missing }} {{ d['missing'] }} {{ d.get('b') }} {{ d.get('zz') }} {{ d.get('zz', 3) }}
{{ d.items() }} {{ d.keys() }} {{ d.values() }} {{ d.keys()|list }} {{ d|items|list }} {{ d.items()|list|length }} {{ d.items()|length }}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
{% for k in d %}{{ k }};{% endfor %}{% for c in u %}{{ c }},{% endfor %}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.cycle('a','b') }}{{ loop.changed(x > 1) }};{% endfor %}
{% for x in [] %}x{% else %}empty{% endfor %}{% for x in undefinedvar %}x{% else %}empty2{% endfor %}{% for x in l if x > 5 %}x{% else %}none{% endfor %}
{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.length }}{{ loop.last }},{% endfor %}
{% for a, b in nested %}{{ a }}-{{ b }},{% endfor %}{% for (a, (b, c)) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in [1,2] %}{% for y in [3,4] %}{{ x }}{{ y }}{{ loop.index }}{% if y == 3 %}{% break %}{% endif %}{% endfor %}{{ loop.index }};{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}
{% set ns = namespace(x=1, y='a') %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z }}{{ ns['x'] }}{{ ns }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t1 = 1, 2 %}{{ t1 }}{% set (p, q) = [3, 4] %}{{ p }}{{ q }}
{% set x %}a{{ n }}b{% endset %}[{{ x }}]{% set x | upper %}abc{% endset %}{{ x }}{% set y|replace('a','z')|upper %}aba{% endset %}{{ y }}
{% if fa %}a{% elif n == 5 %}b{% else %}c{% endif %}{% if not n %}x{% endif %}{% if n == 4 %}a{% elif n == 3 %}b{% else %}c{% endif %}
{% if t %}{% set q = 5 %}{% endif %}{{ q }}
{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, 3) }}|{{ m(1, c=9) }}|{{ m(b=1, a=4) }}|{{ m() }}|{{ m.name }}
{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{{ m() }}
{% macro m(a) %}[{{ caller(a) }}]{% endmacro %}{% call(x) m(5) %}got {{ x }}{% endcall %}{% macro o() %}({{ caller() }}){% endmacro %}{% call o() %}hi{% endcall %}
{% macro rec(n) %}{{ n }}{% if n > 0 %}{{ rec(n - 1) }}{% endif %}{% endmacro %}{{ rec(5) }}
{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}[{{ inner }}]
{% set g = 1 %}{% macro m() %}{{ g }}{% endmacro %}{{ m() }}{% set g = 2 %}{{ m() }}
{% filter upper %}abc {{ s }}{% endfilter %}{% filter replace('a','b')|title %}aaa{% endfilter %}
{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}[{{ a }}]{% with %}{% set z = 3 %}{{ z }}{% endwith %}[{{ z }}]
{% raw %}{{ not }} {% if %}{% endraw %} x {%- raw -%}  a  {%- endraw -%}  b
{# comment #}a{#- strip -#}  b  {#- x #}c
{% generation %}abc{{ n }}{% endgeneration %}
  a  {%- if t -%}  b  {%- endif -%}  c  
a {{- n -}} b {{ n -}}  c {{- n }} d
{{ s|upper }} {{ s|lower }} {{ 'hello wORLD foo-bar (x)'|title }} {{ 'hELLO w'|capitalize }} {{ s.title() }} {{ "they're bill's"|title }} {{ "they're bill's".title() }} {{ s.swapcase() }} {{ 'straße'|upper }} {{ u|upper }} {{ u|lower }}
[{{ ws|trim }}] [{{ ws.strip() }}] [{{ ws.lstrip() }}] [{{ ws.rstrip() }}] [{{ 'xxaxx'.strip('x') }}] [{{ 'xyaxy'.lstrip('yx') }}] [{{ 'xxaxx'|trim('x') }}] [{{ 'a--'.rstrip('-') }}]
{{ l|length }} {{ s|count }} {{ d|length }} {{ undefinedvar|length }} {{ l|first }} {{ l|last }} {{ s|first }} {{ s|last }} {{ el|first }}| {{ el|last }}| {{ d|first }}
{{ l|join }} {{ l|join(', ') }} {{ ls|join('-') }} {{ msgs|join(',', attribute='role') }} {{ s|join('.') }} {{ [1,none,true]|join(' ') }} {{ undefinedvar|join }}
{{ s|replace('l', 'L') }} {{ s|replace('l', 'L', 1) }} {{ s.replace('o', '0') }} {{ s.replace('o', '0', 1) }} {{ 'aaa'.replace('', '-') }} {{ 'aaa'|replace('', '-', 2) }} {{ 5|replace('5', 'x') }}
{{ undefinedvar|default('x') }} {{ undefinedvar|d('y') }} {{ ''|default('z') }} {{ ''|default('z', true) }} {{ none|default('w') }} {{ none|d('w', boolean=true) }} {{ undefinedvar|default }}|
{{ l|sort }} {{ l|sort(reverse=true) }} {{ ls|sort }} {{ ls|sort(case_sensitive=true) }} {{ msgs|sort(attribute='content')|map(attribute='content')|list }} {{ [3,'a']|list }} {{ nested|sort(attribute='1', reverse=true) }}
{{ l|reverse|list }} {{ s|reverse }} {{ u|reverse }} {{ (1,2)|reverse|list }} {{ d|reverse|list }}
{{ [1,2,1,3,2]|unique|list }} {{ ['a','A','b']|unique|list }} {{ ['a','A','b']|unique(true)|list }} {{ msgs|unique(attribute='role')|map(attribute='content')|join }}
{{ msgs|map(attribute='role')|list }} {{ ls|map('upper')|list }} {{ ls|map('replace', 'a', 'X')|list }} {{ msgs|map(attribute='zz', default='D')|list }} {{ l|map('string')|list }} {{ nested|map(attribute=1)|list }} {{ ls|map('default', 'x')|join }}
{{ msgs|selectattr('role', 'equalto', 'user')|list|length }} {{ msgs|selectattr('tool_calls')|list|length }} {{ msgs|rejectattr('role', 'eq', 'user')|map(attribute='content')|join(',') }} {{ msgs|selectattr('tool_calls', 'defined')|map(attribute='role')|list }} {{ msgs|selectattr('role', 'in', ['user','system'])|map(attribute='content')|list }}
{{ l|select('odd')|list }} {{ l|select('gt', 1)|list }} {{ l|reject('even')|list }} {{ [0,1,'',none,'a']|select|list }} {{ [0,1,'',none,'a']|reject|list }} {{ l|select('divisibleby', 3)|list }}
{{ d|dictsort }} {{ {'b':1,'A':2,'c':0}|dictsort }} {{ {'b':1,'A':2,'c':0}|dictsort(true) }} {{ {'b':1,'A':2,'c':0}|dictsort(by='value') }} {{ {'b':1,'A':2}|dictsort(reverse=true) }}
{{ '42'|int }} {{ '42.7'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 3.9|int }} {{ -3.9|int }} {{ true|int }} {{ none|int }} {{ 'ff'|int(base=16) }} {{ '0x1f'|int(0, 16) }} {{ ' 12 '|int }} {{ '1_000'|int }} {{ '-5'|int }} {{ '1e3'|int }} {{ '+7'|int }} {{ '0b11'|int(base=2) }}
{{ '4.5'|float }} {{ 'x'|float }} {{ 'x'|float(1.5) }} {{ 3|float }} {{ '1e3'|float }} {{ ' -2.50 '|float }} {{ 'inf'|float }} {{ none|float }} {{ '.5'|float }} {{ '5.'|float }} {{ '0x10'|float }}
{{ 2.5|round }} {{ 3.5|round }} {{ 2.567|round(2) }} {{ 42.55|round(1, 'floor') }} {{ 42.51|round(1, 'ceil') }} {{ 42|round }} {{ 1234|round(-2) }} {{ 1250|round(-2) }} {{ 1350|round(-2) }} {{ -2.5|round }} {{ 2.675|round(2) }} {{ 0.5|round|int }} {{ 1e20|round }} {{ 1234.5|round(-2) }}
{{ -5|abs }} {{ 5.5|abs }} {{ (-5.5)|abs }} {{ true|abs }} {{ neg|abs }}
{{ l|sum }} {{ [1.5,2]|sum }} {{ [{'a':1},{'a':2}]|sum(attribute='a') }} {{ l|sum(start=10) }} {{ []|sum }} {{ l|min }} {{ l|max }} {{ ls|min }} {{ ls|max }} {{ []|min }}| {{ msgs|max(attribute='content') }}
{{ html|escape }} {{ html|e }} {{ html|safe }} {{ html|e|e }} {{ ('<b>'|safe) + '<i>' }} {{ '<b>' + ('<i>'|safe) }} {{ '<b>'|safe ~ '<i>' }} {{ html|forceescape }} {{ ('<'|safe).join(['<','>']) }} {{ '%s'|safe|replace('%','<') }} {{ ('<b>'|safe)|upper + '<' }}
{{ nl|indent }}|{{ nl|indent(2, true) }}|{{ nl|indent(2, blank=true) }}|{{ nl|indent('> ') }}|{{ 'x'|indent }}|{{ 'x\n'|indent(first=true) }}|{{ ''|indent(2, true) }}
{{ d|tojson }} {{ u|tojson }} {{ u|tojson(ensure_ascii=true) }} {{ html|tojson }} {{ l|tojson }} {{ none|tojson }} {{ 1.0|tojson }} {{ (1,2)|tojson }} {{ 'a\nb\t"\\\x01\x7f'|tojson }} {{ true|tojson }} {{ {1: 2, none: 3, true: 4, 2.5: 5}|tojson }} {{ ''|tojson }}
{{ d|tojson(indent=2) }} {{ el|tojson(indent=2) }} {{ ed|tojson(indent=4) }} {{ nested|tojson(indent=1) }} {{ d|tojson(separators=(',', ':')) }} {{ d|tojson(sort_keys=true) }} {{ l|tojson(indent='--') }} {{ l|tojson(indent=0) }} {{ {'b':{'d':1,'c':2},'a':3}|tojson(sort_keys=true, indent=2, separators=(' ,', ' :')) }}
{{ '%s and %d and %5.2f|%-5s|%05d|%x|%%|%r|%+d|%e|%g' % ('a', 5, 3.14159, 'ab', 42, 255, 'q', 7, 12345.678, 0.00001) }} {{ '%s' % 5 }} {{ '%(a)s-%(b)03d' % {'a': 'x', 'b': 5} }} {{ '%s, %s!'|format('Hello', 'x') }} {{ '%(n)s'|format(n='v') }} {{ '%5s|%-5s|%.2s' % ('é', 'é', 'abc') }} {{ '%c%c' % ('a', 'b') }} {{ '%i' % 3.7 }} {{ '%s' % [1,2] }} {{ '%*d' % (5, 42) }}
{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format('a', 'b') }} {{ '{a} {b[0]} {c.role}'.format(a=1, b=[2], c={'role': 'x'}) }} {{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd') }} {{ '{:.2f} {:5d} {:05d} {:,} {:x} {:b} {:+d} {:e} {:%}'.format(3.14159, 42, 42, 1234567, 255, 5, 3, 1234.5, 0.25) }} {{ '{{}} {}'.format(1) }} {{ '{!r} {!s}'.format('a', 'b') }} {{ '{}'.format(none) }} {{ '{:>8.3f}|{:<8}|{:8}|{:08.2f}'.format(1.5, 2, 3, -1.5) }} {{ '{:d}'.format(true) }} {{ '{}'.format(1.0) }}
{{ s.split() }} {{ s.split('o') }} {{ s.split('o', 1) }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a  b '.split() }} {{ ' a  b '.split(' ') }} {{ ' a b c '.split(None, 1) }} {{ ' a b c '.rsplit(None, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a,b'.split(',', maxsplit=0) }} {{ 'aXXbXXc'.rsplit('XX') }} {{ '<think>x</think>y'.split('</think>')[-1] }} {{ 'a b c'.rsplit(maxsplit=1) }}
{{ nl.splitlines() }} {{ nl.splitlines(true) }} {{ 'a\r\nb\rc\x0bd\u2028e'.splitlines() }} {{ ''.splitlines() }} {{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('-') }} {{ 'abc'.rpartition('-') }}
{{ s.startswith('He') }} {{ s.startswith(('x', 'H')) }} {{ s.endswith('ld') }} {{ s.endswith(('x', 'd')) }} {{ s.startswith('e', 1) }} {{ s.startswith('lo', 3, 5) }} {{ s.endswith('lo', 0, 5) }} {{ s.startswith(()) }} {{ s.startswith('') }}
{{ s.find('o') }} {{ s.find('zz') }} {{ s.rfind('o') }} {{ s.find('o', 5) }} {{ u.find('日') }} {{ s.index('W') }} {{ s.count('l') }} {{ s.count('') }} {{ 'aaaa'.count('aa') }} {{ u.rfind('語') }} {{ s.find('o', -4) }} {{ s.count('o', 5) }} {{ s.rindex('l') }}
{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x-suffix'.removesuffix('-suffix') }} {{ 'abc'.removeprefix('z') }} {{ 'abc'.removesuffix('') }} {{ '-'.join(['a','b']) }} {{ ''.join([]) }} {{ ', '.join(d) }}
{{ '12'.isdigit() }} {{ '1a'.isdigit() }} {{ ''.isdigit() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' \t'.isspace() }} {{ 'AB'.isupper() }} {{ 'ab1'.islower() }} {{ 'Ab Cd'.istitle() }} {{ 'é'.isascii() }} {{ '²'.isdigit() }} {{ '½'.isnumeric() }} {{ '٣'.isdecimal() }} {{ 'ABc'.istitle() }} {{ '1'.isupper() }}
{{ 'ab'.center(7) }}|{{ 'abc'.center(6, '*') }}|{{ 'ab'.ljust(5, '.') }}|{{ 'ab'.rjust(5) }}|{{ '42'.zfill(5) }}|{{ '-42'.zfill(5) }}|{{ 'ab'|center(6) }}|{{ 'abcd'.center(7,'x') }}
{{ s is string }} {{ n is string }} {{ n is number }} {{ t is number }} {{ f is float }} {{ n is float }} {{ n is integer }} {{ t is integer }} {{ t is boolean }} {{ 1 is boolean }} {{ t is true }} {{ 1 is true }} {{ fa is false }} {{ none is none }} {{ undefinedvar is none }}
{{ d is mapping }} {{ l is mapping }} {{ l is iterable }} {{ s is iterable }} {{ n is iterable }} {{ undefinedvar is iterable }} {{ l is sequence }} {{ s is sequence }} {{ d is sequence }} {{ n is sequence }} {{ undefinedvar is sequence }} {{ l|map('string') is sequence }} {{ l|map('string') is iterable }} {{ none is iterable }} {{ range(3) is sequence }} {{ d.items() is sequence }} {{ (1,2) is sequence }}
{{ s is defined }} {{ undefinedvar is defined }} {{ d.zz is defined }} {{ d.b is not defined }} {{ undefinedvar is undefined }} {{ s.zz is defined }} {{ s.strip is defined }} {{ l.append is defined }} {{ l.index is defined }} {{ d.items is defined }} {{ none.x is defined }} {{ l[9] is defined }} {{ s.__class__ is defined }}
{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(3) }} {{ 3 is in [1,3] }} {{ 3 is eq 3 }} {{ 3 is equalto(4) }} {{ 3 is gt 2 }} {{ 3 is lt(2) }} {{ 3 is ge 3 }} {{ 3 is le 2 }} {{ 3 is ne 3 }} {{ 3 is sameas 3 }} {{ none is sameas none }} {{ 'abc' is lower }} {{ 'ABC' is upper }} {{ range is callable }} {{ s is callable }} {{ s.strip is callable }} {{ 'upper' is filter }} {{ 'zz' is filter }} {{ 'odd' is test }} {{ html|safe is escaped }}
{{ not s is string }} {{ s is string and n is number }} {{ s is not string or t }} {{ 3 is odd == true }} {{ 1 is divisibleby 1 and 2 is even }} {{ s is string|string }} {{ 2 + 3 is odd }} {{ -1|abs }} {{ 'a' ~ 'b'|upper }} {{ 1 + 2|string|length }} {{ s|length > 3 }}
{{ range(5)|list }} {{ range(1,4)|list }} {{ range(10,0,-3)|list }} {{ range(0)|list }} {{ range(3) }} {{ range(1, 5, 2) }} {{ range(5)|length }} {{ range(5)|last }} {{ range(5)|sum }} {{ 3 in range(5) }} {{ range(3) == range(0,3,1) }}
{{ dict(a=1, b=2) }} {{ dict([('a', 1)]) }} {{ dict({'x': 1}, y=2) }} {{ dict() }} {{ {'a': 1, 'a': 2} }} {{ {1: 'a', 1.0: 'b', true: 'c'} }} {{ {'a': 1} == {'a': 1.0} }} {{ {(1,2): 3}[(1,2)] }}
{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, %B %d, %Y %H:%M:%S %p %j %U %w %y %f %%') }} [{{ strftime_now('') }}] [{{ strftime_now('%z%Z') }}]
{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }} {% set j = joiner('; ') %}{{ j() }}a{{ j() }}b{{ j() }}c
{{ l|batch(2)|list }} {{ l|batch(2, 'x')|list }} {{ [1,2,3,4,5,6,7]|slice(3)|list }} {{ [1,2,3,4,5,6,7]|slice(3, 'x')|list }} {{ []|batch(3)|list }}
{% for g in msgs|groupby('role') %}{{ g.grouper }}:{{ g.list|length }};{% endfor %}{% for r, ms in msgs|groupby('role') %}{{ r }}{{ ms|map(attribute='content')|join }};{% endfor %}{{ [{'a':'B'},{'a':'b'},{'a':'A'}]|groupby('a')|list }}
{{ 'foo bar baz qux'|truncate(9) }} {{ 'foo bar baz qux'|truncate(9, true) }} {{ 'foo bar baz qux'|truncate(11) }} {{ 'foo bar baz qux'|truncate(11, false, '...', 0) }} {{ 'foo bar, baz'|wordcount }} {{ 'a b&c/d?é'|urlencode }} {{ {'a b':'c&d'}|urlencode }}
{{ s|string }} {{ 5|string + 'a' }} {{ none|string }} {{ l|string }} {{ u|list }} {{ d|list }} {{ undefinedvar|list }} {{ undefinedvar|string }}| {{ undefinedvar|upper }}| {{ (1,2)|list }}
{{ l|attr('index') is callable }} {{ d|attr('b') is defined }} {{ s|attr('upper')() }} {{ l.index(2) }} {{ l.count(1) }} {{ (1,2,1).count(1) }} {{ l.copy() }} {{ d.copy() }}
{{ dict(**{'a': 1}) }} {{ range(*[1, 3])|list }} {% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(1, **{'b': 3}) }}
{% for x in l recursive %}{{ x }}{% if x == 3 %}({{ loop([7, 8]) }}){% endif %}{{ loop.depth }}{% endfor %}
{{ ['é', 'a\u200bb', '\x7f', '\n', 'it''s'] }} {{ ['\u00a0\U000e0001'] }} {{ {'k': "it's"} }} {{ ['"\''] }} {{ ['\\'] }}
{{ s.upper().lower().title()[0:3]|reverse|upper }} {{ (s|lower).split()[0] }} {{ msgs[-1].content }} {{ msgs[0]['role'] }} {{ (msgs|last).role }} {{ msgs[1:]|length }} {{ msgs[::2]|map(attribute='role')|list }} {{ msgs|length - 1 }}
{{ {'a': {'b': {'c': 1}}}.a.b.c }} {{ {'a': 1}|length }} {{ [[], [[]]] }} {{ [1, [2, [3]]] }} {{ ((1, 2), [3]) }} {{ () }} {{ (1,) }} {{ (1) }} {{ [1,2,] }} {{ {'a':1,} }}
{{ 'x' if undefinedvar else 'y' }} {{ undefinedvar or 'z' }} {{ undefinedvar and 1 }}| {{ not undefinedvar }} {{ undefinedvar ~ 'a' }} {{ [undefinedvar] }} {{ undefinedvar in [undefinedvar2] }}
{{ true + true }} {{ true * 3 }} {{ -true }} {{ +5 }} {{ --5 }} {{ 5 - -3 }} {{ 10 - 2 - 3 }} {{ 100 / 10 / 2 }} {{ 2 * 3 % 4 }} {{ 1.5 + 1 }} {{ 1 - 0.9 }} {{ 9 // 2.0 }} {{ -9 // 4 }} {{ 5 % 2.5 }} {{ 0.1 * 3 }} {{ 1e308 * 10 }} {{ -0.0 }} {{ 3 * -1.0 }} {{ big }} {{ big + 1 }} {{ 4 ** 0.5 }}
{% set x = 5 -%}   a {%- set y = 6 %}   b
{%- macro m() -%}  x  {%- endmacro -%} {{ m() }}
{{ msgs|selectattr('role','equalto','user')|first }} {{ (msgs|selectattr('role','equalto','tool')|list) or 'none' }} {{ msgs|map(attribute='role')|unique|sort|join(' ') }}
{% set first = true %}{% for m in msgs %}{% if loop.first and m.role == 'system' %}SYS{% elif (m.role == 'user') != (loop.index0 % 2 == 0) %}U{{ loop.index }}{% else %}?{% endif %}{% endfor %}
{{ loop }}[{{ caller }}]
{% print n %}{% print s ~ 'x' %}
{% set content = 'a</think>b' %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ content }}
{{ no.x }} {{ no['y'] }} {{ n.z }} {{ n['q'] }} {{ n[0] }}| {{ t.foo }}|{{ s.foo }}|{{ s['upper']() }}
{%if t%}a{%endif%}{%for x in l%}{{x}}{%endfor%}{{n}}{{-n-}}{{+n}}
{{ 'a}}b' }} {{ '%}' }} {% if '%}' == '%}' %}x{% endif %} {{ {'a': {'b': 1}}['a']['b'] }} {{ {'a':{}} }}
{{ "a" }}{{ 'b' }}{{ "it's" }}{{ 'say "x"' }}{{ 'a' == "a" }}
{{ [1,2,3][1] }}{{ 'abc'[1] }}{{ {'a':1}['a'] }}{{ (1,2)[0] }}{{ 'abc'|first|upper }}{{ 'a'.upper() ~ 'b'.upper() }}{{ ('a' ~ 'b').upper() }}
{{ [1,2,3]|map('float')|sum }} {{ ['1','2']|map('int')|list }} {{ l|map('abs')|join('+') }} {{ [[1,2],[3]]|map('length')|list }} {{ ls|map('first')|join }} {{ [[1,2],[3]]|map('first')|list }}
{{ [1,2] in [[1,2]] }} {{ {'a':1} in [{'a':1}] }} {{ (1,) in {(1,): 2} }} {{ 1 in {true: 1} }} {{ 'a' in 'abc' in ['abc'] }}
"""

# What needs more than a line: whitespace control, newlines.
WHITESPACE = [
    "   {% if t %}   \n  x\n   {% endif %}   \ny\n",
    "   {%+ if t %}\nx{% endif +%}\nz",
    "a\n    {# comment #}\nb\n{{ n }}\nc\n  {{ n }}  \nd\n",
    "{%- for x in l %}\n\n  {{ x }}\n{%- endfor %}\n\nend",
    "{% if t -%}\n\n\n   x\n{%- endif %}\n",
    "a\r\nb\rc\n\n",
    "{% for x in l %}\n{{ x }}\n{% endfor %}\n",
    "  {% set x = 1 %}  \n  {{ x }}",
    "\n\n{% if t %}\n\n{% endif %}\n\n",
    "{#- a -#}\n x {# b +#}\ny\n {#+ c #}\nz",
    "{% raw %}\n a\n  {% endraw %}\nb",
    "  {% raw -%}\n\n a {{ x }}\n  {%- endraw %}\nb",
    "x {%- raw %} a {% endraw +%}\nb",
    "{{ 'a\\\nb' }}",
    "{{ 'a\nb\r\nc' }}",
    "{% if t %}\n  {% if t %}\n    x\n  {% endif %}\n{% endif %}",
    "\t{% if t %}\t\nx\u00a0{% endif %}",
    "x   {% if t %}y{% endif %}",
    "{{ n }}   {% if t %}y{% endif %}",
    "{{ n -}}\n   {% if t %}y{% endif %}",
    "{% if t %}\n   {% endif %}z",
    "{% if t -%}\n   {% endif %}z",
    "{% for i in l -%}\n  {{ i }}\n{%- endfor %}",
    "{%- if t %}\n{{- s }}\n{%- endif %}\n",
    "{# x #}\n{# y #}  {# z #}\n",
    "{{ s }}{# c #}\n   \n{%- if t -%} a {%- endif -%}\n\n",
    "",
    "\n",
    "\n\n",
    "a",
    "{{ '' }}\n",
]

# Templates that must be refused, while parsing or while rendering.
ERRORS = r"""
{{ 5 is divisibleby 0 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1.0 // 0 }}
{{ missing.x }}
{{ missing['x'] }}
{{ missing() }}
{{ missing + 1 }}
{{ 'a' + missing }}
{{ -missing }}
{{ missing < 1 }}
{{ missing|int }}
{{ missing|tojson }}
{{ missing[1:] }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ [] + () }}
{{ none + none }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ 1 in 5 }}
{{ 1 in 'a' }}
{{ n[1:] }}
{{ s[::0] }}
{{ s['a':] }}
{{ l.append(1) }}
{{ d.pop('b') }}
{{ d.update({}) }}
{{ s.__class__.x }}
{{ n() }}
{{ s() }}
{{ none() }}
{{ 'a'.join([1]) }}
{{ s.index('zz') }}
{{ s.split('') }}
{{ s.strip(1) }}
{{ l|map('upper')|length }}
{{ l|map('nofilter')|list }}
{{ l|map('odd')|list }}
{{ l|select('notest')|list }}
{{ l|map('string')|tojson }}
{{ d.items()|tojson }}
{{ n|length }}
{{ n|items }}{{ n|items|list }}
{{ [3, 'a']|sort }}
{{ {[]: 1} }}
{{ {}[[]] + 1 }}
{{ 'x'|nofilter }}
{{ 'x' is notest }}
{% if false %}{% for x in l %}{{ x|nofilter }}{% endfor %}{% endif %}
{% for a, b in [[1]] %}{% endfor %}
{% for a, b in [[1, 2, 3]] %}{% endfor %}
{% for x in n %}{% endfor %}
{% for loop in l %}{% endfor %}
{% set n.x = 1 %}
{% set 1 = 2 %}
{% set x = %}
{% set x %}
{% set true = 1 %}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=1) }}
{% macro m(a=1, b) %}{% endmacro %}
{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
{% call 5 %}{% endcall %}
{{ loop.index }}
{% for x in l %}{{ loop(l) }}{% endfor %}
{% break %}
{% for x in l %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}
{% unknown %}
{% endif %}
{% if t %}
{% if t %}{% endfor %}
{% for x l %}{% endfor %}
{% for x in l %}{% elif t %}{% endfor %}
{% do l.append(1) %}
{% include 'x' %}
{% import 'x' as y %}
{% extends 'x' %}
{{ 1 2 }}
{{ }}
{{
{{ 'a
{{ 'a' }
{% if %}{% endif %}
{{ (1 }}
{{ [1 }}
{{ {1 }}
{{ {1: } }}
{{ 1 + }}
{{ * 1 }}
{{ a. }}
{{ a.'b' }}
{{ a | }}
{{ a is }}
{{ a is defined is none }}
{{ f(a=1, 2) }}
{{ f(**a, *b) }}
{{ range(1, 2, 0) }}
{{ range(200000) }}
{{ range('a') }}
{{ range() }}
{{ dict(1) }}
{{ dict([1]) }}
{{ '%d' % 'a' }}
{{ '%s %s' % 'a' }}
{{ '%s' % ('a', 'b') }}
{{ '%q' % 1 }}
{{ '%(a)s' % {} }}
{{ '{}'.format() }}
{{ '{} {0}'.format(1) }}
{{ '{a}'.format() }}
{{ '{'.format() }}
{{ '{:d}'.format('a') }}
{{ '\x4' }}
{{ '\U00110000' }}
{{ 1 ? 2 }}
{{ a = 1 }}
{{ a && b }}
{{ !a }}
{# no end
{% raw %} no end
{{ strftime_now() }}
{{ strftime_now(5) }}
{{ raise_exception() }}
{{ l|batch }}
{{ s|replace('a') }}
{{ s|trim('a', 'b') }}
{{ s|trim(nochars='a') }}
{{ 2.5|round(1, 'up') }}
{{ d|dictsort(by='zz') }}
{{ n|dictsort }}
{{ cycler() }}
{{ n|join }}
{{ n|first }}
{{ 'a'|abs }}
{{ ['a']|sum }}
"""


def environment():
    class Generation(jinja2.ext.Extension):
        """transformers' {% generation %}: the text passes through."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

        def _text(self, caller):
            return caller()

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = datetime.datetime(2024, 7, 26, 9, 30).strftime
    return env


def render(env, template):
    try:
        return {"template": template, "expected": env.from_string(template).render(**VARIABLES)}
    except Exception as error:
        return {"template": template, "error": f"{type(error).__name__}: {error}"}


def make_language(path):
    env = environment()
    good = [render(env, t) for t in LINES.strip("\n").split("\n") + WHITESPACE]
    bad = [render(env, t) for t in ERRORS.strip("\n").split("\n")]
    for row in good:
        if "error" in row:
            sys.exit(f"{row['template']}: {row['error']}")
    for row in bad:
        if "expected" in row:
            sys.exit(f"no error: {row['template']}")
    with path.open("w", encoding="utf-8", newline="\n") as f:
        for row in [{"variables": VARIABLES}] + good + bad:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def copy_subset(source, to):
    (to / "jinja").mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        shutil.copyfile(source / "jinja" / f"{name}.jinja", to / "jinja" / f"{name}.jinja")
    shutil.copyfile(source / "conversations.json", to / "conversations.json")
    with (to / "expected.jsonl").open("w", encoding="utf-8", newline="\n") as f:
        for line in (source / "expected.jsonl").open(encoding="utf-8"):
            case = json.loads(line)
            if case["template"] in NAMES and case["add_generation_prompt"]:
                f.write(line)


def main():
    to = pathlib.Path(__file__).parent / "templates"
    source = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/golden/templates")
    copy_subset(source, to)
    make_language(to / "language.jsonl")


if __name__ == "__main__":
    main()
