include(${CMAKE_SOURCE_DIR}/cmake/embed.cmake)
file(GLOB_RECURSE catalog_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/catalog/*.csv ${CMAKE_SOURCE_DIR}/catalog/*.toml
     ${CMAKE_SOURCE_DIR}/catalog/*.json)
stoker_embed(${ROOM_TARGET} catalog ROOT ${CMAKE_SOURCE_DIR}/catalog FILES ${catalog_files})
