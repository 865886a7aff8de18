"""Static files: answered by the server itself, before the application.

Written here and not taken from WhiteNoise or Starlette, since what matters are the descriptors, which are opened below
the directory whatever happens to its links meanwhile, the bounded ranges, and that large files take the server's own
way for files; their versions of these open by name, and bring a framework along.

`paths` decides on the text of a path alone, `tree` opens files, `lookup` finds what answers a path, `application` is
the ASGI application in front of the other one. `conditions`, `ranges`, `codings` and `media_types` know their sections
of RFC 9110 and no file.
"""
