"""Texts for measuring an encoder, that no calibration can have seen."""

from __future__ import annotations

import itertools

PARAGRAPHS = """
The tide gauge at the harbour wall has been read twice a day since 1871. Its oldest notebooks were kept in
pencil, because the ink froze in January. When the series was digitised, three people typed every page and a
fourth compared them. Of 96,000 readings they disagreed on 214, most of them sevens written like ones.

To knead by hand, push the dough away with the heel of your palm, fold it back and turn it a quarter. After
eight minutes it should stretch so thin that light comes through. If it tears, leave it under a bowl for ten
minutes and go on. Rye dough is never kneaded this way, since it has hardly any gluten to develop.

A mutex protects data, a semaphore counts permits, and a condition variable waits for a predicate. Confusing
the three is a common source of deadlocks. Always test the predicate in a loop, because a thread may wake
without a signal. Release the lock before calling code that you do not control.

The tenant shall give notice in writing at least ninety days before the end of the term. Notice sent by
electronic mail is valid only where the landlord has confirmed an address for that purpose. If the last day
falls on a public holiday, the period ends on the next working day. Clause 14 remains in force after
termination.

Patients with a creatinine clearance below 30 ml/min received half of the dose. The primary outcome was time
to first relapse, adjudicated by two neurologists who did not know the allocation. Adverse events were mild in
71 % and led to withdrawal in 4 %. No difference was seen between the centres.

Revenue rose 6.2 % to $418.7 million, driven by higher volumes in specialty coatings. Gross margin fell by 110
basis points as freight and titanium dioxide became dearer. The board declared a dividend of $0.34 a share,
payable on 15 March. Capital expenditure for the year is now expected between $55 and $60 million.

The bassoon enters alone, very high, where it sounds almost like an alto saxophone. Composers before him had
used that register as a joke. Here it opens the work, unaccompanied, and the audience of the first night did
not know what it heard. By the second page the strings had lost them altogether.

def merge(left, right):
    out = []
    while left and right:
        out.append((left if left[0] <= right[0] else right).pop(0))
    return out + left + right
Popping from the front of a list is linear, so this merge is quadratic. Use two indices, or collections.deque.

Kepler's third law says that the square of the period grows with the cube of the semi-major axis. For a
satellite in low orbit the period is about ninety minutes. At 35,786 kilometres it is a day, and the satellite
seems to stand still. The Moon, ten times farther, needs a month.

Prune currants in late winter, when the buds swell but have not opened. Take out two or three of the oldest
stems at the base, leaving those that are one to three years old. Black currants fruit best on last year's
wood. White and red ones carry on short spurs that last for several seasons.

El puente se construyó en 1932 con vigas remachadas y sin una sola soldadura. Durante la inspección se
encontraron grietas en doce nudos. El ayuntamiento cerró un carril y limitó el peso a diez toneladas. Los
vecinos piden que se conserve como paso de peatones.

Die Mühle steht seit dem Sommer still, weil der Bach kein Wasser führt. Der Müller mahlt nun mit Strom und
rechnet jeden Monat nach, ob es sich lohnt. Das alte Rad wird trotzdem geschmiert. Ein trockenes Lager, sagt
er, verzeiht keine Pause.

HTTP 409 tells the client that the request conflicts with the state of the resource. Retrying it unchanged
will fail again. Read the resource, merge your change and send the new version with its ETag in If-Match. A
server that answers 412 has seen somebody else's write in between.

The goalkeeper had studied the takers for a week and dived left four times. Three of the penalties came left.
The fourth struck the post, ran along the line and was cleared by nobody in particular. It was the club's
first final in sixty-one years, and most of the town had walked to the ground.

Granite cools slowly at depth, so its crystals grow large enough to see. Basalt reaches the surface and
freezes within days. Where the two meet, a dark border a hand wide shows how the hot rock was chilled.
Geologists call it a chilled margin and use it to tell which rock came second.

To reset the controller, hold the button for ten seconds until the amber light blinks twice. Do not unplug it
while the light is steady. After a reset the device forgets its network and opens an access point named
SETUP-4F2A. The password is printed under the lid.
""".strip().split("\n\n")

QUERIES = """
who typed the tide tables
when to prune black currants
HTTP 409 vs 412
dividend per share 2023
what is a spurious wakeup
notice period tenant ninety days
rye bread kneading
capital of Mongolia
bassoon solo opening
period of a geostationary orbit
¿cuándo se construyó el puente?
Warum steht die Mühle still?
def quicksort(a):
ImportError: No module named yaml
C++ move semantics
SELECT count(*) FROM users
dose in renal failure
gross margin down basis points
reset password router amber light
chilled margin basalt granite
penalty shoot-out final
how
why?
42
the
a b c d
résumé café naïve
température moyenne en janvier
Σ x² / n
kubectl get pods
it doesn't work
best time to visit
symptoms of iron deficiency
left-handed guitar strings order
convert 5 miles to kilometres
who painted the ceiling
train from Lyon to Turin
lease break clause
how do magnets work
tax on dividends
compile error missing semicolon
git undo last commit
what does ETag mean
is 91 prime
recipe without eggs
shortest path algorithm
mean time between failures
cat vs dog lifespan
why is the sky blue
deadlock detection
python asyncio gather exceptions
wool felting temperature
first woman in space
10-K risk factors inflation
boiling point at 3000 m
red wine stain cotton
ibuprofen with aspirin
orchid leaves turning yellow
ISO 8601 week number
how tall is it
""".strip().split("\n")


def chunks() -> list[str]:
    """Some sixty passages: the paragraphs whole, halved, and joined to the next one."""
    pairs = itertools.pairwise(PARAGRAPHS)
    halves = [part for text in PARAGRAPHS for part in (text[: len(text) // 2], text[len(text) // 2 :]) if part]
    return list(dict.fromkeys([*PARAGRAPHS, *(f"{one} {other}" for one, other in pairs), *halves]))
