-- A whole month at once. The keys stay; what goes with the detail is who got what, and when.
DROP TABLE lifecycle.sends_0
