"""The fonts of the training glyphs and of the page: disjoint families from different foundries.

All of them come with packages that Pigeonhole needs anyway, so the demo downloads nothing. Training uses DejaVu
(after Bitstream Vera, 2003: sans, serif and monospaced, regular and bold) and STIX General (a Times, 1932:
regular and bold): seven faces with wide and narrow, serif and sans shapes of every letter. The page is
printed in Computer Modern (a Modern after Monotype 8A, Knuth, 1977) and Aileron (a grotesque after
Helvetica); neither belongs to a training family. No page face has I and l as the same bar (Computer Modern
Sans does) or l and 1 nearly so (its Typewriter); `text` disambiguates the rest, such as Aileron's I, which
is DejaVu's l. The reverse, training on Computer Modern to read STIX, fails on one letter: the eye of a small
STIX e closes at 28 pixels, and every e becomes a c. So this split was chosen among those with disjoint
families.
"""

from orchestrator.drawing.fonts import MONO, SANS, SANS_BOLD, Face

TRAINING_FACES = (
    SANS,
    SANS_BOLD,
    MONO,
    Face("DejaVu", "Serif", "DejaVuSerif.ttf"),
    Face("DejaVu", "Serif Bold", "DejaVuSerif-Bold.ttf"),
    Face("STIX General", "Regular", "STIXGeneral.ttf"),
    Face("STIX General", "Bold", "STIXGeneralBol.ttf"),
)

ROMAN = Face("Computer Modern", "Roman", "cmr10.ttf")
BOLD = Face("Computer Modern", "Bold", "cmb10.ttf")
AILERON = Face("Aileron", "Regular", None)
